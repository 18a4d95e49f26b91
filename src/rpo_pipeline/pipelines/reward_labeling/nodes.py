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

    rows = _with_text(labels, feedback)
    return normaliser.fit_normaliser(rows[rows["split"] == "train"], labeling)


def normalise_rewards(
    labels: pd.DataFrame, feedback: pd.DataFrame, normaliser: dict[str, Any]
) -> pd.DataFrame:
    """Turn raw_reward into reward."""
    from rpo_pipeline.rewards.normaliser import normalise

    rows = _with_text(labels, feedback)
    return labels.assign(reward=normalise(rows, normaliser, logged=rows))


def report_rewards(
    rewards: pd.DataFrame, feedback: pd.DataFrame, normaliser: dict[str, Any]
) -> dict[str, Any]:
    """Say what was done to the raw rewards, and whether they pay for length."""
    from rpo_pipeline.rewards import reward_report

    return reward_report.report_rewards(_with_text(rewards, feedback), normaliser)


def _with_text(labels: pd.DataFrame, feedback: pd.DataFrame) -> pd.DataFrame:
    """Labels with prompt_id, split and response, in the order of the labels."""
    texts = feedback.set_index("row_id")[["prompt_id", "split", "response"]]
    return labels.join(texts, on="row_id")
