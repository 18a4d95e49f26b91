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
    """Load or build the reference, once, and note which log it is used with."""
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

    tokens = training.micro_batch_tokens
    return Engine(reference, policy, cache, micro_batch_tokens=tokens).logps(feedback)


def score_mismatched(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    cache: Path,
) -> pd.DataFrame:
    """Compute the reference's log-probability of responses to another prompt, which KTO needs."""
    from rpo_pipeline.partition import mismatched_pairs

    if training.objective != "kto":
        return pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    learned = feedback["split"].isin(["train", "validation"])
    labelled = feedback["row_id"].isin(rewards["row_id"])
    pairs = mismatched_pairs(feedback[learned & labelled], training.seed)
    scores = score_reference(pairs, reference, policy, training, cache)
    return pairs[["row_id", "prompt_id"]].assign(logps=scores["logps"].to_numpy())


def sample_reference(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    normaliser: dict[str, Any],
    reference: Path,
    policy: PolicyParams,
    labeling: LabelingParams,
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
    cache: Path,
    label_cache: Path,
) -> pd.DataFrame:
    """Sample and label responses of the reference, where the estimator wants them."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.labeling import label_responses, normalise
    from rpo_pipeline.partition import partition_settings, prompts_to_sample, sample_reference

    rows = feedback[["row_id", "prompt_id", "prompt", "response"]].merge(
        rewards[["row_id", "raw_reward"]], on="row_id"
    )
    settings = partition_settings(rpo, qrpo, training)
    return sample_reference(
        prompts_to_sample(rows, settings),
        Engine(reference, policy, cache, micro_batch_tokens=training.micro_batch_tokens),
        num_samples=rpo.reference_samples.num_samples,
        label=partial(label_responses, labelers=labeling.labelers, cache=label_cache),
        rewards_of=partial(normalise, normaliser=normaliser, logged=rows),
    )


def choose_tau(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    reference_samples: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    workspace: Path,
) -> dict[str, Any]:
    """Choose tau by short trainings where it is `auto`; else there is nothing to choose."""
    from rpo_pipeline.partition import partition_rows, partition_settings
    from rpo_pipeline.search import choose_tau
    from rpo_pipeline.training import training_rows

    settings = partition_settings(rpo, qrpo, training)
    if settings.tau != "auto":
        return {"tau": None, "candidates": []}

    def rows_at(tau: float) -> pd.DataFrame:
        rows = _labelled(feedback, rewards, reference_logps)
        _, targets, _ = partition_rows(rows, reference_samples, settings, tau=tau)
        return training_rows(feedback, rewards, reference_logps, targets)

    return choose_tau(
        rows_at,
        reference,
        policy=policy,
        rpo=rpo,
        training=training,
        evaluation=evaluation,
        workspace=workspace,
    )


def estimate_partition(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    reference_samples: pd.DataFrame,
    chosen_tau: dict[str, Any],
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Estimate log_z of every prompt that has a labelled row, and the target of each row."""
    from rpo_pipeline.partition import partition_rows, partition_settings

    settings = partition_settings(rpo, qrpo, training)
    tau = chosen_tau["tau"] if settings.tau == "auto" else settings.tau
    rows = _labelled(feedback, rewards, reference_logps)
    return partition_rows(rows, reference_samples, settings, tau=tau)


def _labelled(
    feedback: pd.DataFrame, rewards: pd.DataFrame, reference_logps: pd.DataFrame
) -> pd.DataFrame:
    rows = feedback[["row_id", "prompt_id", "split", "behaviour_logps"]]
    return rows.merge(rewards, on="row_id").merge(reference_logps, on="row_id")
