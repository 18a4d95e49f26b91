"""Writes the reward report, which describes raw rewards, rewards and length bias in numbers."""

import logging
from typing import Any

import pandas as pd

from rpo_pipeline.labeling.length_bias import BIASED, length_correlations

logger = logging.getLogger(__name__)


def report_rewards(rows: pd.DataFrame, normaliser: dict[str, Any]) -> dict[str, Any]:
    """Describe how raw rewards became rewards.

    Args:
        rows: Labelled rows: prompt_id, split, response, raw_reward, reward.
        normaliser: Normaliser of ``fit_normaliser``.

    Returns:
        ``normaliser`` (its kind), ``winsorise`` and ``length_penalty`` as fitted, the numbers of
        ``_describe`` for ``train`` and ``others``, and ``warnings``, a list of texts.
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
        "raw_reward": _moments(rows["raw_reward"]),
        "reward": _moments(rows["reward"]),
        "length_correlation": {
            "before": length_correlations(rows, rows["raw_reward"]),
            "after": length_correlations(rows, rows["reward"]),
        },
    }


def _moments(values: pd.Series) -> dict[str, float | None]:
    if values.empty:
        return {"mean": None, "std": None}
    return {"mean": float(values.mean()), "std": float(values.std(ddof=0))}
