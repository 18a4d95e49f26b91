"""What each prompt says of a metric, and how much one more could: what the gate's bounds are from.

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
"""Each brings a gain nearer by a factor of about 4 over the number of prompts."""
SHARE = (0.0, 1.0)
RATE = (-0.5, 0.5)
"""Of a win rate less 1/2."""
SHARES = ("win_rate", "toxic_share", "empty_share", "copied")
"""Metrics that are a share whatever was seen of them."""


def metric_ranges(
    responses: Iterable[pd.DataFrame], labelled: Mapping[str, Range]
) -> dict[str, Range]:
    """Lowest and highest value that a response got, by metric.

    Args:
        responses: Of each model, as ``response_numbers`` gives them.
        labelled: Of what the labelers gave to logged responses, by column.

    Returns:
        Of all of them together; of a share, 0 and 1.
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
    """The ``values`` of prompts that have one, with the ``worst`` and the ``best`` possible one."""
    known = values[~pd.isna(values)]
    return {"values": known.tolist(), "worst": ends[0], "best": ends[1]}


def differences(
    own: Mapping[str, Array], other: Mapping[str, Array], ranges: Mapping[str, Range]
) -> dict[str, dict[str, Any]]:
    """Of two models' numbers: a prompt could lose, or gain, as much as values lie apart."""
    gaps = {}
    for metric, values in own.items():
        apart = ranges[metric][1] - ranges[metric][0]
        gaps[metric] = spread(values - other[metric], (-apart, apart))
    return gaps


def detectable_gain(gaps: Mapping[str, Any]) -> float | None:
    """Smallest true gain that the first challenger of a champion passes with four times in five.

    Args:
        gaps: As ``spread`` gives them, of a difference.

    Returns:
        The gain at which the gate's bound is 0.84 standard errors above 0, in units of the metric;
        null with fewer than two prompts, and where so few cannot show any gain.
    """
    values = torch.tensor(gaps["values"], dtype=torch.float64)
    if len(values) < 2:
        return None
    worst, spare = gaps["worst"], norm.ppf(POWER) * float(values.std()) / len(values) ** 0.5
    gain, centred = 0.0, values - values.mean()
    for _ in range(STEPS):  # a larger gain is farther from the worst, which costs a little more
        end = torch.tensor(worst - gain, dtype=values.dtype)
        gain = spare - float(lower_bound(centred, end, error=(1 - CONFIDENCE) / 2))
    return gain if gain <= max(-worst, spare) else None
