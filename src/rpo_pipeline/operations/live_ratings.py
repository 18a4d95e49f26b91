"""Compares the live ratings of the champion with those of the previous champion."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rpo_pipeline.core import lower_bound
from rpo_pipeline.params import LiveRatingsParams

MIN_PROMPTS = 2
"""Smallest number of prompts for an interval."""
COLUMNS = ["prompt_id", "model_version", "raw_reward"]


def read_ratings(rows: Iterable[pa.RecordBatch], versions: Iterable[str]) -> pd.DataFrame:
    """Read the ratings of several model versions: ``COLUMNS``, one line per rating."""
    wanted = pa.array(sorted(versions), pa.string())
    found = []
    for batch in rows:
        is_wanted = pc.is_in(batch["model_version"], value_set=wanted)
        is_rated = pc.is_valid(batch["raw_reward"])
        found.append(batch.select(COLUMNS).filter(pc.and_(is_wanted, is_rated)).to_pandas())
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def compare_ratings(
    ratings: pd.DataFrame, *, champion: str, previous: str, settings: LiveRatingsParams
) -> dict[str, Any]:
    """Compare the ratings of two versions, as ``model_version`` names them, clustered by prompt.

    The ratings are those of ``read_ratings``. The result has ``champion`` and ``previous``
    (version, num_ratings, num_prompts, mean), ``difference`` ({value, low, high}, champion less
    previous; null if there are too few ratings), ``alarm`` and ``reason``, a text.
    """
    new, old = (ratings[ratings["model_version"] == name] for name in (champion, previous))
    result = {
        "champion": {"version": champion, **_describe(new)},
        "previous": {"version": previous, **_describe(old)},
        "difference": None,
        "alarm": False,
    }
    fewest_prompts = min(new["prompt_id"].nunique(), old["prompt_id"].nunique())
    if min(len(new), len(old)) < settings.min_ratings or fewest_prompts < MIN_PROMPTS:
        return result | {
            "reason": f"champion {champion} has {len(new)} ratings, previous {previous} has "
            f"{len(old)}; {settings.min_ratings} are needed of each, on {MIN_PROMPTS} prompts or "
            "more"
        }
    difference = clustered_difference(new, old, confidence=settings.confidence)
    alarm = difference["high"] < -settings.margin
    return result | {
        "difference": difference,
        "alarm": alarm,
        "reason": f"ratings of champion {champion} less those of previous {previous}: "
        f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}); "
        f"{'the whole interval is below' if alarm else 'it is an alarm if all of it is below'} "
        f"{-settings.margin:+g}",
    }


def _describe(ratings: pd.DataFrame) -> dict[str, Any]:
    return {
        "num_ratings": len(ratings),
        "num_prompts": int(ratings["prompt_id"].nunique()),
        "mean": float(ratings["raw_reward"].mean()) if len(ratings) else None,
    }


def clustered_difference(
    one: pd.DataFrame, other: pd.DataFrame, *, confidence: float
) -> dict[str, float]:
    """Compute the difference of two means with its interval, clustered by prompt.

    Each end comes from a bound of each mean, which share its error probability. So the interval
    holds if few ratings are bad, or few good, and for any relation between the versions' ratings of
    one prompt. Both tables have ``prompt_id`` and ``raw_reward``, of two prompts or more; the
    confidence is that of a single test. The value is one less the other.
    """
    error = (1 - confidence) / 4
    ratings = pd.concat([one["raw_reward"], other["raw_reward"]])
    lowest, highest = float(ratings.min()), float(ratings.max())
    ends = [
        (
            _bound(side, lowest, error),
            -_bound(side.assign(raw_reward=-side["raw_reward"]), -highest, error),
        )
        for side in (one, other)
    ]
    return {
        "value": float(one["raw_reward"].mean() - other["raw_reward"].mean()),
        "low": ends[0][0] - ends[1][1],
        "high": ends[0][1] - ends[1][0],
    }


def _bound(ratings: pd.DataFrame, lowest: float, error: float) -> float:
    """Bound a mean over ratings from below, from the contribution of each prompt."""
    mean = ratings["raw_reward"].mean()
    moves = (ratings["raw_reward"] - mean).groupby(ratings["prompt_id"]).sum().to_numpy(np.float64)
    values = torch.tensor(mean + moves * len(moves) / len(ratings), dtype=torch.float64)
    return float(lower_bound(values, torch.tensor(lowest, dtype=values.dtype), error=error))
