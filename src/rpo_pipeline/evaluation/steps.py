"""An evaluation in one call, and its steps, which the nodes call one by one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation.comparison import compare_models
from rpo_pipeline.evaluation.credibility import measure_labelers
from rpo_pipeline.evaluation.generation import generate
from rpo_pipeline.evaluation.harness import add_tasks, run_tasks
from rpo_pipeline.evaluation.heldout import score_heldout
from rpo_pipeline.evaluation.judge import COLUMNS, judge_pairs
from rpo_pipeline.evaluation.rows import best_responses, prompts_of
from rpo_pipeline.evaluation.similarity import similarity_columns
from rpo_pipeline.evaluation.text_metrics import text_columns
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

    @classmethod
    def among(cls, parameters: Mapping[str, Any]) -> "EvaluationSettings":
        """Select the blocks of an evaluation from the parameters of a run, typed or not."""
        return cls.model_validate({name: parameters[name] for name in cls.model_fields})


def evaluate(
    models: Mapping[str, Path],
    feedback: pd.DataFrame,
    rows: pd.DataFrame,
    settings: EvaluationSettings,
    *,
    cache: Path,
    label_cache: Path,
) -> tuple[Measured, dict[str, Any]]:
    """Measure models on the held-out prompts, by the steps that the evaluation nodes take.

    Args:
        models: Directories by name, as ``name_models`` gives them.
        feedback: All rows, of every split.
        rows: Logged rows of the held-out prompts, from ``hold_out``.
        settings: Parameters of the evaluation.
        cache: Folder of the cached samples and log-probabilities.
        label_cache: Folder of the cached labels.

    Returns:
        The numbers, and the agreement of the labelers with ratings, from ``measure_labelers``.
    """
    evaluation, training, policy = settings.evaluation, settings.training, settings.policy
    num_resamples = evaluation.bootstrap_samples
    engines = {name: Engine(path, policy, training, cache) for name, path in models.items()}
    generations = generate(engines, prompts_of(rows), evaluation.sampling, seed=training.seed)
    agreement_rows = settings.labeling.agreement_rows
    agreement = measure_labelers(feedback, evaluation.labelers, agreement_rows, label_cache)
    own = (settings.labeling, evaluation, label_cache)
    measured = compare_models(
        label_generations(generations, feedback, rows, *own),
        score_rows(rows, Engine(models["challenger"], policy, training), settings.rpo),
        judge_generations(generations, feedback, evaluation, label_cache),
        agreement["ranges"],
        num_resamples=num_resamples,
        seed=training.seed,
    )
    if evaluation.lm_eval is None:
        return measured, agreement
    tasks = run_tasks(engines, evaluation.lm_eval, num_resamples=num_resamples)
    return add_tasks(measured, tasks), agreement


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
    """Label the generations, and measure their text against the logged responses.

    Args:
        generations: Columns prompt_id, prompt and response.
        feedback: Columns split and response, to find text that a model has copied from train.
        rows: Logged rows of the held-out prompts, with the best response to each.
        labeling: Labelers of the training rows; a warning names one that labels generations too.
        evaluation: Labelers of the generations, and optionally an encoder.
        cache: Folder of the cached labels.

    Returns:
        The generations with a column for each label and each measure of the text.
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
    """Compare generations by a judge; without one, the table is empty.

    Args:
        generations: Columns model, prompt_id, prompt, sample and response.
        feedback: All rows; the judge is checked on the rated ones of the test split.
        evaluation: Settings of the evaluation, which name the judge.
        cache: Folder of the cached labels.

    Returns:
        Verdicts of ``judge_pairs``.
    """
    if evaluation.judge is None:
        return pd.DataFrame(columns=COLUMNS)
    held_out = (feedback["split"] == "test") & feedback["raw_reward"].notna()
    return judge_pairs(generations, feedback[held_out], evaluation.judge, cache)


def score_rows(rows: pd.DataFrame, engine: Engine, rpo: RpoParams) -> pd.DataFrame:
    """Compute the log-ratio of a model on the labelled rows of the held-out prompts.

    Args:
        rows: Rows of ``hold_out``.
        engine: Engine of the model.
        rpo: Settings that say whether log-probabilities are summed or averaged over a response.

    Returns:
        row_id, prompt_id, raw_reward, reward, log_ratio in nats, and scaled_reward.
    """
    labelled = rows.dropna(subset="reward")
    scored = score_heldout(
        labelled[["row_id", "prompt_id", "prompt", "response"]],
        labelled,
        labelled[["row_id", "ref_logps"]].rename(columns={"ref_logps": "logps"}).dropna(),
        engine,
        per_token=rpo.logp_reduction == "mean",
    )
    return scored.merge(labelled[["row_id", "scaled_reward"]], on="row_id")
