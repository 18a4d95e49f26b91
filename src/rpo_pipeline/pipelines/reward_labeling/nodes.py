"""Nodes of reward labeling."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import LabelingParams


def fit_reward_models(
    feedback: pd.DataFrame, labeling: LabelingParams, cache: Path
) -> list[dict[str, Any]]:
    """Fit the reward heads of the labelers on the rated rows of the train split."""
    from rpo_pipeline.labeling import fit_reward_models

    return fit_reward_models(feedback, labeling, cache)


def name_labelers(
    labeling: LabelingParams,
    fitted: list[dict[str, Any]],  # noqa: ARG001 (a head must be there to be named)
    cache: Path,
) -> dict[str, str]:
    """Identify each labeler by content, so that new weights in an old folder give new labels."""
    from rpo_pipeline.labeling import build_labeler

    labelers = [build_labeler(settings, cache) for settings in labeling.labelers]
    return {labeler.name: labeler.fingerprint for labeler in labelers}


def label_rows(
    feedback: pd.DataFrame,
    labeling: LabelingParams,
    labelers: dict[str, str],  # noqa: ARG001 (other labelers label anew)
    previous: pd.DataFrame | None,
    cache: Path,
    fitted: list[dict[str, Any]],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Take the rating of each row, or else the label of the first labeler that gives one."""
    from rpo_pipeline.labeling import label_feedback, label_report, measure_drift

    labels = label_feedback(feedback, labeling, cache)
    drift = measure_drift(previous, feedback, labeling)
    report = label_report(labels, feedback, labeling, drift)
    return labels, report | {"fitted_reward_models": fitted}


def fit_normaliser(
    labels: pd.DataFrame, feedback: pd.DataFrame, labeling: LabelingParams
) -> dict[str, Any]:
    """Fit the normaliser on the train split."""
    from rpo_pipeline.labeling import fit_normaliser

    rows = _with_text(labels, feedback)
    return fit_normaliser(rows[rows["split"] == "train"], labeling)


def normalise_rewards(
    labels: pd.DataFrame, feedback: pd.DataFrame, normaliser: dict[str, Any]
) -> pd.DataFrame:
    """Turn raw_reward into reward."""
    from rpo_pipeline.labeling import normalise

    rows = _with_text(labels, feedback)
    return labels.assign(reward=normalise(rows, normaliser, logged=rows))


def report_rewards(
    rewards: pd.DataFrame, feedback: pd.DataFrame, normaliser: dict[str, Any]
) -> dict[str, Any]:
    """Report the normalisation of the raw rewards, and the dependence of reward on length."""
    from rpo_pipeline.labeling import report_rewards

    return report_rewards(_with_text(rewards, feedback), normaliser)


def _with_text(labels: pd.DataFrame, feedback: pd.DataFrame) -> pd.DataFrame:
    """Join labels with prompt_id, split and response, in the order of the labels."""
    texts = feedback.set_index("row_id")[["prompt_id", "split", "response"]]
    return labels.join(texts, on="row_id")
