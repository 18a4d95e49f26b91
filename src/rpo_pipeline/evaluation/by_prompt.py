"""Values of metrics by prompt and their possible ranges, from which the gate's bounds are computed.

Shapes: P prompts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from scipy.stats import norm

from rpo_pipeline.core import lower_bound
from rpo_pipeline.evaluation.metrics import COMPONENT
from rpo_pipeline.evaluation.statistics import CONFIDENCE, Array

Range = tuple[float, float]
POWER = 0.8
STEPS = 30
"""Iterations; each reduces the error of a gain to about 4 / P of it."""
SHARE = (0.0, 1.0)
RATE = (-0.5, 0.5)
"""Range of a win rate less 1/2."""
SHARES = ("win_rate", "toxic_share", "empty_share", "copied")
"""Metrics whose range is 0 to 1 for any data."""


def metric_ranges(
    responses: Iterable[pd.DataFrame], labelled: Mapping[str, Range]
) -> dict[str, Range]:
    """Find the lowest and highest value of each metric; 0 and 1 for a share.

    They are over the tables of ``response_numbers`` of all models, and over the labels of logged
    responses, whose ranges are known by column.
    """
    every = pd.concat([numbers.drop(columns="prompt_id") for numbers in responses])
    ranges = {str(name): (float(every[name].min()), float(every[name].max())) for name in every}
    names = {"raw_reward": "reward_mean", "toxicity": "toxicity_mean"}
    for column, (low, high) in labelled.items():
        metric = names.get(column, f"{COMPONENT}{column}")
        if metric in ranges:
            ranges[metric] = min(low, ranges[metric][0]), max(high, ranges[metric][1])
    return ranges | {name: SHARE for name in SHARES if name in ranges}


def spread(values: Array, ends: Range) -> dict[str, Any]:
    """Collect the ``values`` that are known, with the ``worst`` and the ``best`` possible value."""
    known = values[~pd.isna(values)]
    return {"values": known.tolist(), "worst": ends[0], "best": ends[1]}


def differences(
    own: Mapping[str, Array], other: Mapping[str, Array], ranges: Mapping[str, Range]
) -> dict[str, dict[str, Any]]:
    """Subtract two models' values by prompt; a difference can reach the metric's whole range."""
    width = {metric: high - low for metric, (low, high) in ranges.items()}
    return {m: spread(own[m] - other[m], (-width[m], width[m])) for m in own}


def detectable_gain(gaps: Mapping[str, Any]) -> float | None:
    """Compute the smallest true gain with which a first challenger passes in four of five cases.

    That is the gain at which the gate's bound is 0.84 standard errors above 0, in units of the
    metric, by differences from ``spread``; None with fewer than two prompts, or if so few prompts
    cannot show any gain.
    """
    values = torch.tensor(gaps["values"], dtype=torch.float64)
    if len(values) < 2:
        return None
    worst, spare = gaps["worst"], norm.ppf(POWER) * float(values.std()) / len(values) ** 0.5
    gain, centred = 0.0, values - values.mean()
    for _ in range(STEPS):  # a larger gain is farther from the worst value, which widens the bound
        end = torch.tensor(worst - gain, dtype=values.dtype)
        gain = spare - float(lower_bound(centred, end, error=(1 - CONFIDENCE) / 2))
    return gain if gain <= max(-worst, spare) else None
