"""Nodes of partition estimation."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    EvaluationParams,
    LabelingParams,
    PolicyParams,
    QrpoParams,
    RpoParams,
    TrainingParams,
)


def prepare_reference(
    existing: Path | None,
    feedback: pd.DataFrame,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
    last_log: dict[str, Any] | None,
) -> tuple[Path, dict[str, Any]]:
    """Load or build the reference, once, and record the log that it is used with."""
    from rpo_pipeline.training import prepare_reference, sketch_log

    made_from = (existing, feedback, policy, training, workspace)
    return prepare_reference(*made_from, last_log=last_log), sketch_log(feedback)


def score_reference(
    feedback: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Compute the reference's log-probability of every response, once."""
    from rpo_pipeline.engine import Engine

    return Engine(reference, policy, training, cache).logps(feedback)


def join_scores(
    feedback: pd.DataFrame, rewards: pd.DataFrame, reference_logps: pd.DataFrame
) -> pd.DataFrame:
    """Put reward and reference log-probability beside every row of the log."""
    from rpo_pipeline.partition import join_scores

    return join_scores(feedback, rewards, reference_logps)


def score_mismatched(
    scored_rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Compute the reference's log-probability of responses to other prompts, which KTO needs."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.partition import labelled_rows, score_mismatched

    engine = Engine(reference, policy, training, cache)
    is_needed = training.objective == "kto"
    rows = labelled_rows(scored_rows)
    return score_mismatched(rows, engine, seed=training.seed, is_needed=is_needed)


def settle_estimation(
    scored_rows: pd.DataFrame,
    labeling: LabelingParams,
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Settle the estimator of log_z and its settings."""
    from rpo_pipeline.partition import labelled_rows, settle_estimation

    rows = labelled_rows(scored_rows)
    return settle_estimation(rows, rpo, qrpo, training, labeling).model_dump(mode="json")


def add_levels(
    scored_rows: pd.DataFrame, reference: Path, policy: PolicyParams, training: TrainingParams
) -> pd.DataFrame:
    """Take the labelled rows, and predict the rewards of prompts if each has one response."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.partition import add_levels, labelled_rows

    return add_levels(labelled_rows(scored_rows), Engine(reference, policy, training))


def sample_reference(
    rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    estimation: dict[str, Any],
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Sample responses of the reference, if the estimator needs them."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.partition import Estimation, prompts_to_sample, sample_reference

    rpo = Estimation.model_validate(estimation).rpo
    engine = Engine(reference, policy, training, cache)
    prompts = prompts_to_sample(rows, rpo)
    return sample_reference(prompts, engine, rpo.reference_samples.num_samples)


def label_samples(
    samples: pd.DataFrame,
    scored_rows: pd.DataFrame,
    normaliser: dict[str, Any],
    labeling: LabelingParams,
    label_cache: Path,
) -> pd.DataFrame:
    """Label the samples of the reference, on the scale of the logged responses."""
    from rpo_pipeline.labeling import label_responses, normalise
    from rpo_pipeline.partition import label_samples, labelled_rows

    logged = labelled_rows(scored_rows)
    label = partial(label_responses, labelers=labeling.labelers, cache=label_cache)
    return label_samples(samples, label, partial(normalise, normaliser=normaliser, logged=logged))


def choose_tau(
    rows: pd.DataFrame,
    reference_samples: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    estimation: dict[str, Any],
    training: TrainingParams,
    evaluation: EvaluationParams,
    workspace: Path,
) -> dict[str, Any]:
    """Choose tau by short trainings if the parameters leave it open; else nothing is chosen."""
    from rpo_pipeline.partition import Estimation
    from rpo_pipeline.search import Trials, choose_tau, rows_at_tau

    rpo = Estimation.model_validate(estimation).rpo
    if not rpo.searches_tau:
        return {"tau": None, "candidates": []}
    rows_at = partial(rows_at_tau, rows, reference_samples, rpo)
    trials = Trials(rows_at, reference, policy, rpo, training, evaluation, workspace)
    return choose_tau(trials)


def estimate_partition(
    rows: pd.DataFrame,
    reference_samples: pd.DataFrame,
    chosen_tau: dict[str, Any],
    estimation: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Estimate log_z of every prompt that has a labelled row, and the target of each row."""
    from rpo_pipeline.partition import Estimation, partition_rows

    settled = Estimation.model_validate(estimation)
    tau = settled.rpo.tau_or(chosen_tau["tau"])
    table, targets, health = partition_rows(rows, reference_samples, settled.rpo, tau=tau)
    return table, targets, health | {"reason": settled.reason}
