"""Resamples of seeds and prompts, from which all intervals of a comparison come.

Every method is computed from the same resamples, which pairs the differences in both.

Shapes: S seeds, P prompts, D draws; the first draw is the sample itself, the others are resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from rpo_pipeline.evaluation import (
    Array,
    Interval,
    holm,
    percentile_interval,
    resample_prompts,
)

ENOUGH = 0.95
"""Share of the resamples that must have a number for its interval to be told."""


@dataclass(frozen=True)
class Draws:
    """How often each seed and each prompt is in each draw."""

    seeds: Array
    """Shape ``(D, S)``."""
    prompts: Array
    """Shape ``(D, P)``."""

    @classmethod
    def of(cls, values: Array, num_resamples: int) -> Self:
        """Draw resamples of ``(S, P)``, which depend on its shape only."""
        num_seeds, num_prompts = values.shape
        return cls(
            seeds=_counts(num_seeds, num_resamples, seed=1),
            prompts=_counts(num_prompts, num_resamples, seed=0),
        )

    def means(self, values: Array) -> Array:
        """Average ``(S, P)`` over each draw, without NaN; shape ``(D,)``, NaN if all are."""
        known = np.isfinite(values)
        sums, sizes = (
            ((self.prompts @ part.T) * self.seeds).sum(axis=1)
            for part in (np.where(known, values, 0.0), known.astype(float))
        )
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / sizes)


def _counts(number: int, num_resamples: int, seed: int) -> Array:
    drawn = resample_prompts(number, num_resamples, seed)
    counts = np.zeros((num_resamples + 1, number))
    counts[0] = 1.0
    np.add.at(counts, (np.arange(1, num_resamples + 1)[:, None], drawn), 1.0)
    return counts


def interval_of(drawn: Array) -> Interval:
    """Read a number and its 95 % interval from its draws, shape ``(D,)``.

    The interval is null if the sample has no number, and its ends are null if less than ``ENOUGH``
    of the resamples have one.
    """
    known = drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(drawn[0]):
        return {"value": None, "low": None, "high": None}
    if len(known) < ENOUGH * (len(drawn) - 1):
        return {"value": float(drawn[0]), "low": None, "high": None}
    return percentile_interval(float(drawn[0]), known)


def holm_of(drawn: Mapping[str, Array]) -> dict[str, float]:
    """Compute p-values of the differences of methods to the first, with Holm's correction.

    Args:
        drawn: Draws of each method, shape ``(D,)``.

    Returns:
        By method; a difference whose interval has no ends has none.
    """
    first, *others = drawn
    differences = {name: drawn[name] - drawn[first] for name in others}
    return holm(
        {
            name: _p_value(values)
            for name, values in differences.items()
            if interval_of(values)["low"] is not None
        }
    )


def _p_value(drawn: Array) -> float:
    """Compute the two-sided p-value of 0; the sample counts too, so that no p-value is 0."""
    known = drawn[np.isfinite(drawn)]
    tail = (min((known[1:] <= 0).sum(), (known[1:] >= 0).sum()) + 1) / len(known)
    return min(1.0, 2 * float(tail))
