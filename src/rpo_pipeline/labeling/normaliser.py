"""From raw_reward to reward: fitted on train rows, stored with the model.

Three steps: raw rewards are drawn in to quantiles of train if asked to, or else to where no outlier
decides what all others teach; length is paid for if asked to; and the rest is brought to a scale.
On each scale but ``none`` the train rewards have mean 0 and a standard deviation of about 1, so
that tau means the same for all.
"""

import logging
import math
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.length_bias import LengthPenalty, fit_penalty
from rpo_pipeline.params import LabelingParams

logger = logging.getLogger(__name__)

MAX_KNOTS = 1001
"""Raw rewards that a ``rank`` normaliser keeps; between them it interpolates."""
MIN_REWARDS = 40
"""Train rows, from which on an outlier can be told."""
FAR = 10.0
"""Distance from the median, in widths of the middle 90 % of train, that an outlier is drawn in to.
Of normally distributed rewards none is a third as far."""


def fit_normaliser(train: pd.DataFrame, labeling: LabelingParams) -> dict[str, Any]:
    """Fit a normaliser on the labelled rows of the train split.

    Args:
        train: Columns prompt_id, response, raw_reward.
        labeling: Kind of the normaliser, quantiles and length penalty.

    Returns:
        ``kind``, ``winsorise`` (``[low, high]`` raw rewards, or null: also where only outliers of
        ``zscore`` and ``per_prompt`` are drawn in), ``length_penalty`` (null
        without), and what the kind needs: ``mean`` and ``std``, such that reward = (raw_reward -
        mean) / std; or ``raw_rewards`` and their ``rewards``, rising, for ``rank``.

    Raises:
        DataError: If there is no raw reward, or all are equal: there is nothing to learn from.
    """
    raw_rewards = train["raw_reward"]
    _check_differ(raw_rewards, "the raw rewards")
    bounds = None
    if labeling.winsorise:
        bounds = [float(bound) for bound in raw_rewards.quantile(list(labeling.winsorise))]
        _check_differ(raw_rewards.clip(*bounds), "the winsorised raw rewards")
    elif labeling.normaliser in ("zscore", "per_prompt"):  # ranks have none, `none` is as it is
        bounds = _outlier_bounds(raw_rewards)
    fitted: dict[str, Any] = {"kind": labeling.normaliser, "winsorise": bounds}
    penalty = None
    if labeling.length_penalty is not None:
        drawn_in = train.assign(raw_reward=_winsorise(raw_rewards, fitted))
        penalty = fit_penalty(drawn_in, labeling.length_penalty).to_dict()
    fitted["length_penalty"] = penalty
    adjusted = train.assign(raw_reward=adjust(train, fitted))
    _check_differ(adjusted["raw_reward"], "the raw rewards less the length penalty")
    return fitted | _fit_scale(adjusted, labeling.normaliser)


def adjust(rows: pd.DataFrame, normaliser: dict[str, Any]) -> pd.Series:
    """Raw rewards of rows (raw_reward, response), drawn in and less the penalty of their length."""
    drawn_in = _winsorise(rows["raw_reward"], normaliser)
    if normaliser["length_penalty"] is None:
        return drawn_in
    return drawn_in - LengthPenalty(**normaliser["length_penalty"]).of(rows["response"])


def normalise(rows: pd.DataFrame, normaliser: dict[str, Any], logged: pd.DataFrame) -> pd.Series:
    """Apply a fitted normaliser to logged rows or to new text.

    ``per_prompt`` takes mean and standard deviation of a prompt from its logged rows, whatever
    their split: they decide the rewards of that prompt alone, as its log_z does. Where one response
    is logged, or all have the same reward, the standard deviation within the prompts of train
    stands in; where none is, the mean of train as well.

    Args:
        rows: Columns prompt_id, response, raw_reward.
        normaliser: As ``fit_normaliser`` gives it.
        logged: The labelled rows of the log, with the same columns; ``rows`` may be they.

    Returns:
        Rewards, in the order of the rows.
    """
    raw_rewards, kind = adjust(rows, normaliser), normaliser["kind"]
    if kind == "rank":
        placed = np.interp(raw_rewards, normaliser["raw_rewards"], normaliser["rewards"])
        return pd.Series(placed, index=rows.index)
    mean, std = normaliser["mean"], normaliser["std"]
    if kind == "per_prompt":
        by_prompt = adjust(logged, normaliser).groupby(logged["prompt_id"])
        own = by_prompt.std(ddof=0)
        own = own.where(own > 1e-9 * std)  # equal but for rounding
        mean = rows["prompt_id"].map(by_prompt.mean()).fillna(mean)
        std = rows["prompt_id"].map(own).fillna(std)
    rewards: pd.Series = (raw_rewards - mean) / std
    return rewards


def _winsorise(raw_rewards: pd.Series, normaliser: dict[str, Any]) -> pd.Series:
    bounds = normaliser["winsorise"]
    return raw_rewards if bounds is None else raw_rewards.clip(*bounds)


def _outlier_bounds(raw_rewards: pd.Series) -> list[float] | None:
    """Where raw rewards end that are no outliers; None if all are within."""
    p5, median, p95 = raw_rewards.quantile([0.05, 0.5, 0.95])
    low, high = median - FAR * (p95 - p5), median + FAR * (p95 - p5)
    num_outside = int((~raw_rewards.between(low, high)).sum())
    if len(raw_rewards) < MIN_REWARDS or p95 == p5 or not num_outside:
        return None
    logger.warning(
        "%d of %d train rows have a raw reward further than %g times the width of the middle 90 %% "
        "from the median, and would decide the scale of all others: they count as %g or %g "
        "(labeling.winsorise draws in to quantiles, labeling.normaliser `rank` needs neither)",
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
    """Mid-ranks, brought to the mean and standard deviation of a uniform distribution, 0 and 1."""
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
