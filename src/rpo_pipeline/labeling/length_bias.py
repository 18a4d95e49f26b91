"""Measures whether longer responses are rewarded for their length, and fits a penalty for it.

The reward report holds these numbers and those of raw rewards and rewards.

Length is the logarithm of the number of characters, which is defined for every script. It is
compared within prompts, because hard prompts have long and bad responses without length being the
cause.

Shapes: N rows, P prompts.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.agreement import moments

logger = logging.getLogger(__name__)

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


def log_length(responses: pd.Series) -> pd.Series:
    """Take the logarithm of one plus the number of characters of each response."""
    return pd.Series(np.log1p(responses.str.len().to_numpy(np.float64)), index=responses.index)


def fit_penalty(train: pd.DataFrame, per_std: float | Literal["auto"]) -> LengthPenalty:
    """Fit the scale of lengths on train and, if asked to, the penalty.

    Train holds prompt_id, response and raw_reward. ``per_std`` is the penalty for each standard
    deviation of log length; ``auto`` takes the slope of raw reward on log length within prompts,
    which makes their correlation within prompts 0. If all responses, or for ``auto`` those of each
    prompt, are equally long, ``DataError`` is raised.
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
    """Correlate rewards, shape ``(N,)``, with log length, over all rows and within prompts.

    The rows hold prompt_id and response. Returns ``overall`` and ``within_prompt``, each ``{value,
    low, high}``: Pearson's correlation with a 95 % interval over prompts; null if nothing varies.
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
    on_scale = np.arctanh(np.clip([value, *without], -1 + 1e-12, 1 - 1e-12))
    n, centre, others = len(sums), on_scale[0], on_scale[1:]
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


def report_rewards(rows: pd.DataFrame, normaliser: dict[str, Any]) -> dict[str, Any]:
    """Describe how raw rewards became rewards.

    The labelled rows hold prompt_id, split, response, raw_reward and reward. Returns ``normaliser``
    (its kind), ``winsorise`` and ``length_penalty`` as fitted, the numbers of ``_describe`` for
    ``train`` and ``others``, and ``warnings``, a list of texts.
    """
    in_train = rows["split"] == "train"
    report: dict[str, Any] = {
        "normaliser": normaliser["kind"],
        "winsorise": normaliser["winsorise"],
        "length_penalty": normaliser["length_penalty"],
        "train": _describe(rows[in_train], normaliser),
        "others": _describe(rows[~in_train], normaliser),
    }
    within = report["train"]["length_correlation"]["after"]["within_prompt"]["value"]
    report["warnings"] = []
    if within is not None and abs(within) > BIASED:
        report["warnings"].append(
            f"within prompts the reward follows the length of the response (correlation "
            f"{within:+.2f}): a policy may learn length alone; see labeling.length_penalty"
        )
    for warning in report["warnings"]:
        logger.warning(warning)
    return report


def _describe(rows: pd.DataFrame, normaliser: dict[str, Any]) -> dict[str, Any]:
    """Count rows, prompts and clipped raw rewards, and describe rewards and length bias."""
    low, high = normaliser["winsorise"] or (-float("inf"), float("inf"))
    return {
        "num_rows": len(rows),
        "num_prompts": int(rows["prompt_id"].nunique()),
        "num_raised": int((rows["raw_reward"] < low).sum()),
        "num_lowered": int((rows["raw_reward"] > high).sum()),
        "raw_reward": moments(rows["raw_reward"]),
        "reward": moments(rows["reward"]),
        "length_correlation": {
            "before": length_correlations(rows, rows["raw_reward"]),
            "after": length_correlations(rows, rows["reward"]),
        },
    }
