"""Nodes of reward labeling."""

from typing import Any

import pandas as pd

from rpo_pipeline.params import LabelingParams


def label_rows(feedback: pd.DataFrame, labeling: LabelingParams) -> pd.DataFrame:
    """Give each row the raw_reward of the first labeler that has one."""
    from rpo_pipeline.rewards.labelers import label_feedback

    return label_feedback(feedback, labeling.labelers)


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
