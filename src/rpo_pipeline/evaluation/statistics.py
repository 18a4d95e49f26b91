"""Intervals over prompts.

Prompts are what is drawn at random, so they are what is resampled: the responses of one prompt stay
together, and every model and metric sees the same resampled prompts, which pairs the differences.

Shapes: P prompts, B resamples.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = dict[str, float | None]

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964


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
