"""Whether longer responses are rewarded for their length, and what is taken off for it.

Length is the logarithm of the number of characters, which every script has. Within a prompt it is
compared with the other responses to the same prompt: hard prompts have long and bad responses
without length being the cause.

Shapes: N rows, P prompts.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rpo_pipeline.errors import DataError

Array = NDArray[np.float64]

NORMAL_QUANTILE = 1.959964
BIASED = 0.5
"""Correlation with length within prompts above which it is worth a loud warning."""


@dataclass(frozen=True)
class LengthPenalty:
    """Raw reward taken off for length."""

    per_std: float
    """For each standard deviation of log length."""
    mean_log_length: float
    """Of the train rows: a response of this length keeps its raw reward."""
    std_log_length: float
    """Of the train rows."""

    def of(self, responses: pd.Series) -> pd.Series:
        """What is taken off each response; negative for short ones."""
        deviation = (log_length(responses) - self.mean_log_length) / self.std_log_length
        return self.per_std * deviation

    def to_dict(self) -> dict[str, float]:
        """For a JSON file."""
        return asdict(self)


def log_length(responses: pd.Series) -> pd.Series:
    """Logarithm of one plus the number of characters of each response."""
    return pd.Series(np.log1p(responses.str.len().to_numpy(np.float64)), index=responses.index)


def fit_penalty(train: pd.DataFrame, per_std: float | Literal["auto"]) -> LengthPenalty:
    """Fit the scale of lengths on train and, if asked to, the penalty.

    Args:
        train: Columns prompt_id, response, raw_reward.
        per_std: Raw reward for each standard deviation of log length; ``auto``: the slope of raw
            reward on log length within prompts, after which their correlation there is 0.

    Returns:
        The penalty.

    Raises:
        DataError: If the responses are all equally long, or for ``auto`` those of each prompt.
    """
    lengths = log_length(train["response"])
    mean, std = float(lengths.mean()), float(lengths.std(ddof=0))
    within = _within(lengths, train["prompt_id"])
    spread = std if per_std != "auto" else float((within**2).mean() ** 0.5)
    if spread < 1e-9:
        where = "of each prompt " if per_std == "auto" else ""
        raise DataError(
            f"labeling.length_penalty: the responses {where}in train are all equally long, so "
            "there is no length to pay for (set it to null, or `auto` to a number)"
        )
    if per_std == "auto":
        rewards = _within(train["raw_reward"], train["prompt_id"])
        per_std = std * float((within * rewards).sum() / (within**2).sum())
    return LengthPenalty(per_std, mean, std)


def length_correlations(rows: pd.DataFrame, rewards: pd.Series) -> dict[str, Any]:
    """Correlate rewards with log length, over all rows and within prompts.

    Args:
        rows: Columns prompt_id and response, shape ``(N,)``.
        rewards: Of the rows.

    Returns:
        ``overall`` and ``within_prompt``, each ``{value, low, high}``: Pearson's correlation with
        a 95 % interval over prompts, null where nothing varies.
    """
    lengths = log_length(rows["response"])
    prompts = rows["prompt_id"]
    return {
        "overall": _correlation(lengths, rewards, prompts),
        "within_prompt": _correlation(
            _within(lengths, prompts), _within(rewards, prompts), prompts
        ),
    }


def _within(values: pd.Series, prompts: pd.Series) -> pd.Series:
    return values - values.groupby(prompts).transform("mean")


def _correlation(x: pd.Series, y: pd.Series, prompts: pd.Series) -> dict[str, float | None]:
    """Correlation, and its interval from leaving each prompt out once, on Fisher's scale."""
    x, y = x - x.mean(), y - y.mean()  # sums of squares of large numbers lose digits
    products = pd.DataFrame({"n": 1.0, "x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y})
    sums = products.groupby(prompts).sum().to_numpy(np.float64)
    value = float(_from_sums(sums.sum(axis=0)))
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    without = _from_sums(sums.sum(axis=0) - sums)
    if len(sums) < 3 or np.isnan(without).any():
        return {"value": value, "low": None, "high": None}
    n, (centre, others) = len(sums), (_fisher(np.array(value)), _fisher(without))
    error = NORMAL_QUANTILE * np.sqrt((n - 1) / n * ((others - others.mean()) ** 2).sum())
    low, high = np.tanh([centre - error, centre + error])
    return {"value": value, "low": float(low), "high": float(high)}


def _from_sums(sums: Array) -> Array:
    """Pearson's correlation from sums, shape ``(..., 6)``; NaN where nothing varies."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((xx - x * x / n) * (yy - y * y / n))
        correlation: Array = np.where(spread > 1e-12, (xy - x * y / n) / spread, np.nan)
    return correlation


def _fisher(correlation: Array) -> Array:
    transformed: Array = np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    return transformed
