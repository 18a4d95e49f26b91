"""An evaluation in one call, and those of its steps that join several of the room's functions."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.engine import Engine, StoredModel
from rpo_pipeline.evaluation.comparison import compare_models
from rpo_pipeline.evaluation.credibility import measure_labelers
from rpo_pipeline.evaluation.generation import generate
from rpo_pipeline.evaluation.harness import add_tasks, run_tasks
from rpo_pipeline.evaluation.judge import judge_pairs
from rpo_pipeline.evaluation.rows import best_responses, log_ratios, prompts_of
from rpo_pipeline.evaluation.text_metrics import similarity_columns, text_columns
from rpo_pipeline.labeling import label_responses, warn_of_shared_labelers
from rpo_pipeline.params import (
    EvaluationParams,
    LabelingParams,
    Params,
    PolicyParams,
    RpoParams,
    TrainingParams,
)
from rpo_pipeline.records import Champion, Measured


class EvaluationSettings(Params):
    """The parameter blocks that decide an evaluation."""

    policy: PolicyParams
    rpo: RpoParams
    labeling: LabelingParams
    training: TrainingParams
    evaluation: EvaluationParams


def evaluate(
    models: dict[str, Path],
    feedback: pd.DataFrame,
    rows: pd.DataFrame,
    settings: EvaluationSettings,
    *,
    cache: Path,
    label_cache: Path,
) -> tuple[Measured, dict[str, Any]]:
    """Measure models on the held-out prompts, by the steps that the evaluation nodes take.

    ``models`` are directories by name, from ``name_models``; ``rows`` are those of ``hold_out``.
    The numbers come with the agreement of the labelers with ratings, from ``measure_labelers``.
    """
    evaluation, training, policy = settings.evaluation, settings.training, settings.policy
    engines = {name: Engine(path, policy, training, cache) for name, path in models.items()}
    generations = generate(engines, prompts_of(rows), evaluation.sampling, seed=training.seed)
    agreement_rows = settings.labeling.agreement_rows
    agreement = measure_labelers(feedback, evaluation.labelers, agreement_rows, label_cache)
    own = (settings.labeling, evaluation, label_cache)
    challenger = Engine(models["challenger"], policy, training)
    measured = compare_models(
        label_generations(generations, feedback, rows, *own),
        score_rows(rows, challenger, per_token=settings.rpo.averages_tokens(training.objective)),
        judge_generations(generations, feedback, evaluation, label_cache),
        agreement["ranges"],
        num_resamples=evaluation.bootstrap_samples,
        seed=training.seed,
    )
    return add_tasks(measured, measure_tasks(models, policy, training, evaluation)), agreement


def name_models(reference: Path, challenger: Path, champion: Champion) -> dict[str, Path]:
    """Return the directories of the models to compare, by name; a champion only if there is one."""
    models = {"reference": reference, "challenger": challenger}
    return models | ({"champion": champion.path} if champion.path else {})


def label_generations(
    generations: pd.DataFrame,
    feedback: pd.DataFrame,
    rows: pd.DataFrame,
    labeling: LabelingParams,
    evaluation: EvaluationParams,
    cache: Path,
) -> pd.DataFrame:
    """Label generations, and measure their text against the logged responses of their prompts.

    A warning names a labeler of ``labeling`` that labels generations too. Text that a model has
    copied from train is looked for in ``feedback``. The generations get a column for each label and
    each measure.
    """
    warn_of_shared_labelers(labeling.labelers, evaluation.labelers)
    texts = generations["prompt"].tolist(), generations["response"].tolist()
    best = best_responses(rows)
    train = frozenset(feedback.loc[feedback["split"] == "train", "response"])
    labels = label_responses(*texts, evaluation.labelers, cache, every=True)
    measured = [labels, text_columns(generations, best, train)]
    if evaluation.encoder:
        measured.append(similarity_columns(generations, best, evaluation.encoder))
    return pd.concat([generations, *measured], axis=1)


def judge_generations(
    generations: pd.DataFrame, feedback: pd.DataFrame, evaluation: EvaluationParams, cache: Path
) -> pd.DataFrame:
    """Compare generations by a judge, if there is one, and check it on ratings of test rows."""
    held_out = (feedback["split"] == "test") & feedback["raw_reward"].notna()
    return judge_pairs(generations, feedback[held_out], evaluation.judge, cache)


def score_rows(rows: pd.DataFrame, engine: Engine, *, per_token: bool) -> pd.DataFrame:
    """Compute the log-ratio of a model, in nats, on the labelled rows of ``hold_out``."""
    scored = rows.dropna(subset=["reward", "ref_logps"], ignore_index=True)
    scored["log_ratio"] = log_ratios(scored, engine, per_token=per_token)
    return scored[["row_id", "prompt_id", "raw_reward", "reward", "log_ratio", "scaled_reward"]]


def measure_tasks(
    models: dict[str, Path],
    policy: PolicyParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
) -> dict[str, Any]:
    """Run the tasks of the lm-evaluation-harness on every model; empty if none are set."""
    if evaluation.lm_eval is None:
        return {}
    stored = {name: StoredModel(path, policy, training) for name, path in models.items()}
    return run_tasks(stored, evaluation.lm_eval, num_resamples=evaluation.bootstrap_samples)
