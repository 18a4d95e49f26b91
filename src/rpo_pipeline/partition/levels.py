"""The reward that is expected of each prompt, for logs without a prompt of two responses."""

import logging

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.labeling import cross_fit

logger = logging.getLogger(__name__)

FOLDS = 5
MIN_PROMPTS = 50
"""Smallest number of train prompts for a regression; below, the mean of train is the level."""


def is_single(rows: pd.DataFrame) -> bool:
    """Tell whether no train prompt of labelled rows has two responses."""
    train = rows.loc[rows["split"] == "train", "prompt_id"]
    return bool(len(train)) and train.is_unique


def add_levels(rows: pd.DataFrame, engine: Engine) -> pd.DataFrame:
    """Add the expected reward of each row's prompt, if no train prompt has two responses.

    The level is the mean reward of the other train rows. If a ridge regression on the states of
    the reference at the end of the prompt predicts the rewards of prompts that it was not fitted on
    with a smaller squared error, the level is its prediction, for a train prompt by a regression
    that was not fitted on it.

    Args:
        rows: Labelled rows: prompt_id, prompt, split, reward.
        engine: The reference, which is loaded only if no train prompt has two responses.

    Returns:
        The rows with the column level, in units of the reward; null if a train prompt has two
        responses.
    """
    if not is_single(rows):
        return rows.assign(level=np.nan)
    train = (rows["split"] == "train").to_numpy()
    rewards = rows.loc[train, "reward"].to_numpy(np.float64)
    levels = np.full(len(rows), rewards.mean())
    if train.sum() > 1:
        levels[train] = (rewards.sum() - rewards) / (len(rewards) - 1)
    if train.sum() < MIN_PROMPTS:
        return rows.assign(level=levels)
    prompts = rows.drop_duplicates("prompt_id")
    with engine:
        states = engine.prompt_states(prompts["prompt"].tolist())
    place = pd.Index(prompts["prompt_id"]).get_indexer(pd.Index(rows["prompt_id"]))
    features = states[place]
    folds = pd.factorize(rows.loc[train, "prompt_id"], sort=True)[0] % FOLDS
    held_out, others = cross_fit(features[train], rewards, folds, features[~train])
    errors = [float(np.square(some - rewards).mean()) for some in (held_out, levels[train])]
    if errors[0] < errors[1]:
        levels[train], levels[~train] = held_out, others
    logger.info(
        "no train prompt has two responses: the level of a prompt is %s (squared error %.3f by "
        "regression on the prompt, %.3f by the mean, on prompts that were left out)",
        "its prediction from the prompt" if errors[0] < errors[1] else "the mean reward of train",
        *errors,
    )
    return rows.assign(level=levels)
