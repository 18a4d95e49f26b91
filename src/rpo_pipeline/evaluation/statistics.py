"""Intervals over prompts.

Prompts are what is drawn at random, so they are what is resampled: the responses of one prompt stay
together, and every model and metric sees the same resampled prompts, which pairs the differences.

Shapes: P prompts, B resamples.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]
Interval = dict[str, float | None]

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964
DETECTABLE = 2.8
"""Standard errors that a true difference must have to be found in 80 of 100 comparisons at the
5 % level (1.96 + 0.84)."""


def resample_prompts(num_prompts: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Prompts of each bootstrap resample, shape ``(B, P)``."""
    return np.random.default_rng(seed).integers(num_prompts, size=(num_resamples, num_prompts))


def mean_interval(values: Array, resamples: NDArray[np.int64]) -> Interval:
    """Mean over prompts with its percentile bootstrap interval.

    Args:
        values: One number a prompt, shape ``(P,)``; NaN where a prompt has none.
        resamples: As ``resample_prompts`` gives them.

    Returns:
        ``{value, low, high}``, null where no prompt has a number.
    """
    known = np.isfinite(values)
    if not known.any():  # no prompt at all, or none with a number
        return {"value": None, "low": None, "high": None}
    drawn = known[resamples]
    sums = np.where(drawn, values[resamples], 0.0).sum(axis=1)
    counts = drawn.sum(axis=1)
    means = sums[counts > 0] / counts[counts > 0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {"value": float(values[known].mean()), "low": float(low), "high": float(high)}


def quantile_draws(values: Array, resamples: NDArray[np.int64], q: float) -> tuple[float, Array]:
    """A quantile over all responses.

    Args:
        values: One number a response, shape ``(P, k)``.
        resamples: As ``resample_prompts`` gives them; a prompt's responses stay together.
        q: Which quantile, 0 to 1.

    Returns:
        The quantile, and that of each resample, shape ``(B,)``.
    """
    drawn = np.array([np.quantile(values[rows], q) for rows in resamples])
    return float(np.quantile(values, q)), drawn


def percentile_interval(value: float, draws: Array) -> Interval:
    """Interval of a number from what it was in each resample, shape ``(B,)``."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def shifted(interval: Interval, by: float) -> Interval:
    """An interval moved as a whole."""
    moved: dict[str, float | None] = {
        name: None if number is None else number + by for name, number in interval.items()
    }
    return moved


def detectable_difference(difference: Interval) -> float | None:
    """Smallest true difference that so many prompts would show in four of five evaluations.

    Args:
        difference: A paired difference with its 95 % interval.

    Returns:
        2.8 standard errors (1.96 + 0.84), in units of the metric; null without an interval.
    """
    if difference["low"] is None or difference["high"] is None:
        return None
    return DETECTABLE * (difference["high"] - difference["low"]) / (2 * NORMAL_QUANTILE)


def p_value(difference: Interval) -> float:
    """Two-sided p-value of a difference's being 0, from its 95 % interval as of a normal one."""
    value, low, high = (difference[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return 1.0
    if low == high:
        return float(value == 0)
    return float(2 * norm.sf(abs(value) * 2 * NORMAL_QUANTILE / (high - low)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for how many there are.

    Args:
        p_values: By name.

    Returns:
        Adjusted p-values, at most 1, by name.

    Source:
        Holm (1979), a simple sequentially rejective multiple test procedure.
    """
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def jackknife_interval(value: float, without: Array) -> Interval:
    """Interval of a number that is no mean over prompts, from leaving each prompt out once.

    Resampling with replacement would repeat prompts, and so understate how many different words
    there are.

    Args:
        value: From all prompts.
        without: From all prompts but one, shape ``(P,)``.

    Returns:
        ``{value, low, high}``, value plus and minus 1.96 standard errors.
    """
    n = len(without)
    error = NORMAL_QUANTILE * float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return {"value": value, "low": value - error, "high": value + error}
