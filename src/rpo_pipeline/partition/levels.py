"""The reward that is expected of each prompt, for logs with one response a prompt."""

import logging

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine
from rpo_pipeline.labeling import cross_fit

logger = logging.getLogger(__name__)

FOLDS = 5
MIN_PROMPTS = 50
"""Smallest number of train prompts for a regression; below, the mean of train is the level."""
FEW_REPEATS = 0.05
"""Share of train prompts with several responses, up to which these cannot tell how much rewards
vary within a prompt."""


def is_single(rows: pd.DataFrame) -> bool:
    """Tell whether hardly any train prompt of labelled rows has two responses."""
    sizes = rows.loc[rows["split"] == "train", "prompt_id"].value_counts()
    return bool(len(sizes)) and float((sizes > 1).mean()) <= FEW_REPEATS


def add_levels(rows: pd.DataFrame, engine: Engine) -> pd.DataFrame:
    """Add the expected reward of each row's prompt, if hardly any has two responses.

    The level is the mean reward of the train rows of other prompts. If a ridge regression on the
    states of the reference at the end of the prompt predicts the rewards of prompts that it was not
    fitted on with a smaller squared error, the level is its prediction, for a train prompt by a
    regression that was not fitted on it.

    Args:
        rows: Labelled rows: prompt_id, prompt, split, reward.
        engine: The reference, which is loaded only if levels are needed.

    Returns:
        The rows with the column level, in units of the reward, the same for the rows of a prompt;
        null if more than a few train prompts have two responses.
    """
    if not is_single(rows):
        return rows.assign(level=np.nan)
    train = (rows["split"] == "train").to_numpy()
    rewards = rows.loc[train, "reward"].to_numpy(np.float64)
    by_prompt = rows[train].groupby("prompt_id")["reward"]
    levels = np.full(len(rows), rewards.mean())
    if by_prompt.ngroups > 1:
        rest = len(rewards) - by_prompt.transform("size")
        levels[train] = (rewards.sum() - by_prompt.transform("sum")) / rest
    if by_prompt.ngroups < MIN_PROMPTS:
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
        "hardly any train prompt has two responses: the level of one is %s (squared error %.3f by "
        "regression on the prompt, %.3f by the mean, on prompts that were left out)",
        "its prediction from the prompt" if errors[0] < errors[1] else "the mean reward of train",
        *errors,
    )
    return rows.assign(level=levels)
