"""Turns raw_reward into reward; the normaliser is fitted on train rows and stored with the model.

There are three steps. Raw rewards are clipped, to quantiles of train if asked to, and otherwise to
a range without outliers. A penalty for length is subtracted if asked to. The result is scaled: on
each scale but ``none`` the train rewards have mean 0 and a standard deviation of about 1, so that a
tau means the same on all of them.
"""

import logging
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.length_bias import LengthPenalty, fit_penalty
from rpo_pipeline.params import LabelingParams

logger = logging.getLogger(__name__)

MAX_KNOTS = 1001
"""Number of raw rewards that a ``rank`` normaliser keeps; it interpolates between them."""
MIN_REWARDS = 40
"""Smallest number of train rows for a check of outliers."""
FAR = 10.0
"""Distance from the median, in widths of the middle 90 % of train, that outliers are clipped to.
Normally distributed rewards do not reach a third of it."""


def fit_normaliser(train: pd.DataFrame, labeling: LabelingParams) -> dict[str, Any]:
    """Fit a normaliser on prompt_id, response and raw_reward of the labelled train rows.

    Returns ``kind``; ``winsorise``, the ``[low, high]`` raw rewards to clip to, for the quantiles
    or only for outliers of ``zscore`` and ``per_prompt``, or null; ``length_penalty`` or null; and
    what the kind needs: ``mean`` and ``std``, such that reward = (raw_reward - mean) / std, or for
    ``rank`` increasing ``raw_rewards`` and their ``rewards``. ``DataError`` is raised if there is
    no raw reward, or all are equal, so that nothing can be learned.
    """
    raw_rewards = train["raw_reward"]
    _check_differ(raw_rewards, "the raw rewards")
    bounds = None
    if labeling.winsorise:
        bounds = [float(bound) for bound in raw_rewards.quantile(list(labeling.winsorise))]
        _check_differ(raw_rewards.clip(*bounds), "the winsorised raw rewards")
    elif labeling.normaliser in ("zscore", "per_prompt"):  # outliers do not move ranks
        bounds = _outlier_bounds(raw_rewards)
    fitted: dict[str, Any] = {
        "kind": labeling.normaliser,
        "winsorise": bounds,
        "length_penalty": None,
    }
    if labeling.length_penalty is not None:
        clipped = train.assign(raw_reward=adjust(train, fitted))
        fitted["length_penalty"] = asdict(fit_penalty(clipped, labeling.length_penalty))
    adjusted = train.assign(raw_reward=adjust(train, fitted))
    _check_differ(adjusted["raw_reward"], "the raw rewards less the length penalty")
    return fitted | _fit_scale(adjusted, labeling.normaliser)


def adjust(rows: pd.DataFrame, normaliser: dict[str, Any]) -> pd.Series:
    """Clip the raw rewards of rows (raw_reward, response) and subtract the penalty for length."""
    clipped = rows["raw_reward"].clip(*(normaliser["winsorise"] or (None, None)))
    if normaliser["length_penalty"] is None:
        return clipped
    return clipped - LengthPenalty(**normaliser["length_penalty"]).of(rows["response"])


def normalise(rows: pd.DataFrame, normaliser: dict[str, Any], logged: pd.DataFrame) -> pd.Series:
    """Apply a fitted normaliser to logged rows or to new text; the order of the rows is kept.

    ``per_prompt`` takes mean and standard deviation of a prompt from its logged rows of any split,
    because they affect the rewards of that prompt only, as its log_z does. The standard deviation
    within the prompts of train is used for a prompt with one logged response, or equal rewards; the
    mean of train as well for a prompt without logged responses. Rows and logged rows, which may be
    the same, hold prompt_id, response and raw_reward.
    """
    raw_rewards, kind = adjust(rows, normaliser), normaliser["kind"]
    if kind == "rank":
        placed = np.interp(raw_rewards, normaliser["raw_rewards"], normaliser["rewards"])
        return pd.Series(placed, index=rows.index)
    mean, std = normaliser["mean"], normaliser["std"]
    if kind == "per_prompt":
        by_prompt = adjust(logged, normaliser).groupby(logged["prompt_id"])
        own = by_prompt.std(ddof=0)
        own = own.where(own > 1e-9 * std)  # rewards that differ only by rounding count as equal
        mean = rows["prompt_id"].map(by_prompt.mean()).fillna(mean)
        std = rows["prompt_id"].map(own).fillna(std)
    rewards: pd.Series = (raw_rewards - mean) / std
    return rewards


def _outlier_bounds(raw_rewards: pd.Series) -> list[float] | None:
    """Return the range of raw rewards without outliers, or None if there are no outliers."""
    p5, median, p95 = raw_rewards.quantile([0.05, 0.5, 0.95])
    low, high = median - FAR * (p95 - p5), median + FAR * (p95 - p5)
    num_outside = int((~raw_rewards.between(low, high)).sum())
    if len(raw_rewards) < MIN_REWARDS or p95 == p5 or not num_outside:
        return None
    logger.warning(
        "%d of %d train rows have a raw reward further than %g times the width of the middle 90 %% "
        "from the median, and would decide the scale of all others: they count as %g or %g "
        "(labeling.winsorise clips to quantiles, labeling.normaliser `rank` needs neither)",
        num_outside,
        len(raw_rewards),
        FAR,
        low,
        high,
    )
    return [float(low), float(high)]


def _fit_scale(train: pd.DataFrame, kind: str) -> dict[str, Any]:
    raw_rewards = train["raw_reward"]
    if kind == "none":
        return {"mean": 0.0, "std": 1.0}
    if kind == "rank":
        return _fit_ranks(raw_rewards.to_numpy(np.float64))
    mean = float(raw_rewards.mean())
    if kind == "zscore":
        return {"mean": mean, "std": float(raw_rewards.std(ddof=0))}
    by_prompt = raw_rewards.groupby(train["prompt_id"])
    within = raw_rewards - by_prompt.transform("mean")
    several = by_prompt.transform("size") > 1
    std = math.sqrt((within[several] ** 2).mean()) if several.any() else 0.0
    if std <= 1e-9 * raw_rewards.std(ddof=0):
        raise DataError(
            "labeling.normaliser `per_prompt` compares the responses of one prompt, and no prompt "
            f"of the {train['prompt_id'].nunique()} in train has two with different raw rewards "
            "(take `zscore`, or log more responses a prompt)"
        )
    return {"mean": mean, "std": std}


def _fit_ranks(raw_rewards: np.ndarray) -> dict[str, Any]:
    """Fit mid-ranks, scaled so that a uniform distribution has mean 0 and standard deviation 1."""
    values, counts = np.unique(raw_rewards, return_counts=True)
    quantiles = (np.cumsum(counts) - counts / 2) / len(raw_rewards)
    rewards = math.sqrt(12) * (quantiles - 0.5)
    knots = np.unique(np.linspace(0, len(values) - 1, MAX_KNOTS).round().astype(int))
    return {"raw_rewards": values[knots].tolist(), "rewards": rewards[knots].tolist()}


def _check_differ(raw_rewards: pd.Series, what: str) -> None:
    if raw_rewards.nunique() < 2:
        seen = "no row has one" if raw_rewards.empty else f"all are {raw_rewards.iloc[0]:g}"
        raise DataError(
            f"{what} of the {len(raw_rewards)} train rows do not differ ({seen}): there "
            "is nothing to learn (check ingestion.sources[].ratings, labeling.labelers and "
            "labeling.winsorise)"
        )
