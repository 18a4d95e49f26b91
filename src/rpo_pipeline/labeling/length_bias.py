"""Measures whether longer responses are rewarded for their length, and fits a penalty for it.

Length is the logarithm of the number of characters, which is defined for every script. It is
compared within prompts, because hard prompts have long and bad responses without length being the
cause.

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
"""Correlation of reward and length within prompts above which a warning is given."""


@dataclass(frozen=True)
class LengthPenalty:
    """Penalty that is subtracted from raw rewards for length."""

    per_std: float
    """Penalty for each standard deviation of log length."""
    mean_log_length: float
    """Mean log length of train rows, at which the penalty is 0."""
    std_log_length: float
    """Standard deviation of the log length of train rows."""

    def of(self, responses: pd.Series) -> pd.Series:
        """Compute the penalty of each response; it is negative for short ones."""
        deviation = (log_length(responses) - self.mean_log_length) / self.std_log_length
        return self.per_std * deviation

    def to_dict(self) -> dict[str, float]:
        """Return the numbers in a form that JSON can hold."""
        return asdict(self)


def log_length(responses: pd.Series) -> pd.Series:
    """Take the logarithm of one plus the number of characters of each response."""
    return pd.Series(np.log1p(responses.str.len().to_numpy(np.float64)), index=responses.index)


def fit_penalty(train: pd.DataFrame, per_std: float | Literal["auto"]) -> LengthPenalty:
    """Fit the scale of lengths on train and, if asked to, the penalty.

    Args:
        train: Columns prompt_id, response, raw_reward.
        per_std: Penalty for each standard deviation of log length; ``auto`` takes the slope of raw
            reward on log length within prompts, which makes their correlation within prompts 0.

    Returns:
        The penalty.

    Raises:
        DataError: If all responses, or for ``auto`` those of each prompt, are equally long.
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
        rewards: Reward of each row, shape ``(N,)``.

    Returns:
        ``overall`` and ``within_prompt``, each ``{value, low, high}``: Pearson's correlation with
        a 95 % interval over prompts; null if nothing varies.
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
    """Compute a correlation and its jackknife interval over prompts, on Fisher's scale."""
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
    """Compute Pearson's correlation from sums, shape ``(..., 6)``; NaN where nothing varies."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((xx - x * x / n) * (yy - y * y / n))
        correlation: Array = np.where(spread > 1e-12, (xy - x * y / n) / spread, np.nan)
    return correlation


def _fisher(correlation: Array) -> Array:
    transformed: Array = np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    return transformed
