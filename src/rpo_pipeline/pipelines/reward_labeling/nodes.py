"""Nodes of reward labeling."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import LabelingParams


def fit_reward_models(
    feedback: pd.DataFrame, labeling: LabelingParams, cache: Path
) -> list[dict[str, Any]]:
    """Fit the reward heads that labelers want, on the train rows that people rated."""
    from rpo_pipeline.rewards.fitted_reward_model import fit_reward_models

    return fit_reward_models(feedback, labeling, cache)


def label_rows(
    feedback: pd.DataFrame,
    labeling: LabelingParams,
    previous: pd.DataFrame | None,
    cache: Path,
    fitted: list[dict[str, Any]],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give each row the rating that people gave, or else the label of the first that has one."""
    from rpo_pipeline.rewards.agreement import label_report
    from rpo_pipeline.rewards.drift import measure_drift
    from rpo_pipeline.rewards.labeling import label_feedback

    labels = label_feedback(feedback, labeling, cache)
    drift = measure_drift(previous, feedback, labeling)
    report = label_report(labels, feedback, labeling, drift)
    return labels, report | {"fitted_reward_models": fitted}


def fit_normaliser(
    labels: pd.DataFrame, feedback: pd.DataFrame, labeling: LabelingParams
) -> dict[str, Any]:
    """Fit the normaliser on the train split."""
    from rpo_pipeline.rewards import normaliser

    train = feedback.loc[feedback["split"] == "train", "row_id"]
    raw_rewards = labels.loc[labels["row_id"].isin(train), "raw_reward"]
    return normaliser.fit_normaliser(raw_rewards, labeling.normaliser)


def normalise_rewards(labels: pd.DataFrame, normaliser: dict[str, Any]) -> pd.DataFrame:
    """Turn raw_reward into reward."""
    from rpo_pipeline.rewards.normaliser import normalise

    return labels.assign(reward=normalise(labels["raw_reward"], normaliser))
