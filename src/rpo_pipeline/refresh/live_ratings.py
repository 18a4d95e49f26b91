"""What people say of the champion in use, beside what they said of the previous one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

from rpo_pipeline.params import LiveRatingsParams

MIN_PROMPTS = 2
"""One has no spread."""
COLUMNS = ["prompt_id", "model_version", "raw_reward"]


def read_ratings(rows: Iterable[pa.RecordBatch], versions: Iterable[str]) -> pd.DataFrame:
    """Ratings of some model versions: ``COLUMNS``, one line a rating."""
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
    """Compare the ratings of two versions; those of one prompt stand or fall together.

    The standard error is clustered by prompt (a prompt may have been answered by both versions),
    the interval is Student's with as many degrees of freedom as the version with fewer prompts has,
    less one.

    Args:
        ratings: ``prompt_id``, ``model_version``, ``raw_reward``.
        champion: As ``model_version`` names it.
        previous: The champion before it.
        settings: How many ratings are enough, and what is an alarm.

    Returns:
        ``champion`` and ``previous`` (version, num_ratings, num_prompts, mean), ``difference``
        ({value, low, high}, champion less previous; null if there are too few ratings), ``alarm``
        and a ``reason`` for people.
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
    """Difference of two means with its interval, clustered by prompt.

    Args:
        one: ``prompt_id`` and ``raw_reward``, of two prompts or more.
        other: The same.
        confidence: Of the interval.

    Returns:
        value (one less other), low, high.
    """
    value = float(one["raw_reward"].mean() - other["raw_reward"].mean())
    influence = _influence(one).sub(_influence(other), fill_value=0.0)
    prompts = min(one["prompt_id"].nunique(), other["prompt_id"].nunique())
    error = float(np.sqrt((influence**2).sum() * prompts / (prompts - 1)))
    width = error * float(student.ppf((1 + confidence) / 2, df=prompts - 1))
    return {"value": value, "low": value - width, "high": value + width}


def _influence(ratings: pd.DataFrame) -> "pd.Series[float]":
    """How much each prompt moves the mean."""
    centred = ratings["raw_reward"] - ratings["raw_reward"].mean()
    return centred.groupby(ratings["prompt_id"]).sum() / len(ratings)
