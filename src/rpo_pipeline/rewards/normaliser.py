"""From raw_reward to reward, fitted on train rows and stored with the model."""

from typing import Any, Literal

import pandas as pd

from rpo_pipeline.errors import DataError


def fit_normaliser(raw_rewards: pd.Series, kind: Literal["zscore", "none"]) -> dict[str, Any]:
    """Fit a normaliser on the raw rewards of the train split.

    Args:
        raw_rewards: One per train row.
        kind: ``zscore``: mean 0 and population standard deviation 1; ``none``: as they are.

    Returns:
        ``{"kind", "mean", "std"}``, such that reward = (raw_reward - mean) / std.

    Raises:
        DataError: If there is no raw reward, or all are equal: there is nothing to learn from.
    """
    if raw_rewards.empty or raw_rewards.nunique() < 2:
        seen = "no row has one" if raw_rewards.empty else f"all are {raw_rewards.iloc[0]:g}"
        raise DataError(
            f"the raw rewards of the {len(raw_rewards)} train rows do not differ ({seen}): there "
            "is nothing to learn (check ingestion.sources[].ratings and labeling.labelers)"
        )
    if kind == "none":
        return {"kind": kind, "mean": 0.0, "std": 1.0}
    return {"kind": kind, "mean": float(raw_rewards.mean()), "std": float(raw_rewards.std(ddof=0))}


def normalise(raw_rewards: pd.Series, normaliser: dict[str, Any]) -> pd.Series:
    """Apply a fitted normaliser."""
    rewards: pd.Series = (raw_rewards - normaliser["mean"]) / normaliser["std"]
    return rewards
