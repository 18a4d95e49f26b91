"""Intervals over prompts.

Prompts are the random sample, so prompts are resampled: the responses to one prompt stay together,
and all models and metrics use the same resampled prompts, which pairs the differences.

Shapes: P prompts, B resamples, k responses to each prompt.
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
"""Size of a true difference, in standard errors, that 80 % of comparisons find at the 5 % level
(1.96 + 0.84)."""


def resample_prompts(num_prompts: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw the prompts of each bootstrap resample, shape ``(B, P)``."""
    return np.random.default_rng(seed).integers(num_prompts, size=(num_resamples, num_prompts))


def mean_interval(values: Array, resamples: NDArray[np.int64]) -> Interval:
    """Compute the mean over prompts, ``(P,)``, with its percentile bootstrap interval.

    A prompt without a number has NaN; if no prompt has one, value and ends are None. ``resamples``
    holds the prompts of each resample, shape ``(B, P)``.
    """
    known = np.isfinite(values)
    if not known.any():
        return {"value": None, "low": None, "high": None}
    drawn = known[resamples]
    sums = np.where(drawn, values[resamples], 0.0).sum(axis=1)
    counts = drawn.sum(axis=1)
    return percentile_interval(float(values[known].mean()), sums[counts > 0] / counts[counts > 0])


def percentile_interval(value: float, draws: Array) -> Interval:
    """Compute the interval of a number from its values in the resamples, shape ``(B,)``."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def detectable_difference(difference: Interval) -> float | None:
    """Compute the smallest true difference that so many prompts show in four of five evaluations.

    It is 2.8 standard errors of a paired difference, by its 95 % interval; None without one.
    """
    if difference["low"] is None or difference["high"] is None:
        return None
    return DETECTABLE * (difference["high"] - difference["low"]) / (2 * NORMAL_QUANTILE)


def p_value(difference: Interval) -> float:
    """Compute the two-sided p-value of a difference of 0 from a 95 % interval taken as normal."""
    value, low, high = (difference[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return 1.0
    if low == high:
        return float(value == 0)
    return float(2 * norm.sf(abs(value) * 2 * NORMAL_QUANTILE / (high - low)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for their number, to at most 1.

    Source:
        Holm (1979), a simple sequentially rejective multiple test procedure.
    """
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def jackknife_interval(value: float, without: Array) -> Interval:
    """Compute the jackknife interval of a number that is no mean over prompts.

    Resampling with replacement would repeat prompts and so underestimate the number of distinct
    words.

    ``without`` is the number without each prompt in turn, shape ``(P,)``. The ends are 1.96
    standard errors from the value.
    """
    n = len(without)
    error = NORMAL_QUANTILE * float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return {"value": value, "low": value - error, "high": value + error}
