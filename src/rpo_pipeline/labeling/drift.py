"""Measures drift: rows of the previous run are labelled again and the labels are compared."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rpo_pipeline.labeling.labeling import build_labeler
from rpo_pipeline.params import LabelerParams, LabelingParams

logger = logging.getLogger(__name__)

CHANGED = 1e-3
"""Change of a label that counts, as a share of the labels' standard deviation."""


def measure_drift(
    previous: pd.DataFrame | None, feedback: pd.DataFrame, labeling: LabelingParams
) -> dict[str, dict[str, Any]]:
    """Label a sample of the previous run's rows again, without the cache, and compare.

    Returns for each labeler of text with rows that still exist: ``n``, their number;
    ``labeler_changed``, whether its settings, weights or code changed (if not, a labeler that
    depends on nothing else has no drift); ``mean`` and ``std`` of the change in raw reward;
    ``drift``, the mean absolute change in standard deviations of the previous labels;
    ``rank_correlation``; ``share_changed``; ``num_unanswered``. Without a previous run nothing is
    compared.
    """
    if previous is None or "labeler_fingerprint" not in previous:
        return {}
    found = {}
    for settings in labeling.labelers:
        before = previous[previous["labeler"] == settings.title]
        rows = _sample(feedback, before, labeling.drift_rows)
        if settings.scores_new_text and not rows.empty:
            found[settings.title] = _compare(settings, rows, before["raw_reward"].std(ddof=0))
            _warn(settings.title, found[settings.title], labeling.max_drift)
    return found


def _sample(feedback: pd.DataFrame, before: pd.DataFrame, num_rows: int) -> pd.DataFrame:
    """Choose rows that still exist, by row_id, so that runs choose the same rows."""
    kept = before.set_index("row_id")[["raw_reward", "labeler_fingerprint"]].add_prefix("old_")
    rows = feedback.merge(kept, left_on="row_id", right_index=True)
    return rows.sort_values("row_id", ignore_index=True).head(num_rows)


def _compare(settings: LabelerParams, rows: pd.DataFrame, spread: float) -> dict[str, Any]:
    labeler = build_labeler(settings, cache=None)
    new = labeler.label(rows)["raw_reward"]
    both = new.notna()
    old, new = rows.loc[both, "old_raw_reward"], new[both]
    change = (new - old).to_numpy(np.float64)
    can_rank = old.nunique() > 1 and new.nunique() > 1
    unit = spread or 1.0
    found: dict[str, Any] = {
        "n": len(change),
        "num_unanswered": int((~both).sum()),
        "labeler_changed": bool((rows["old_labeler_fingerprint"] != labeler.fingerprint).any()),
        "rank_correlation": float(spearmanr(old, new)[0]) if can_rank else None,
    }
    if not len(change):
        return found | dict.fromkeys(("mean", "std", "drift", "share_changed"))
    return found | {
        "mean": float(change.mean()),
        "std": float(change.std()),
        "drift": float(np.abs(change).mean() / unit),
        "share_changed": float((np.abs(change) > CHANGED * unit).mean()),
    }


def _warn(name: str, found: dict[str, Any], max_drift: float) -> None:
    if found["drift"] is None or found["drift"] <= max_drift:
        return
    cause = (
        "its settings, weights or code changed, so every row is labelled anew"
        if found["labeler_changed"]
        else "although its settings and weights did not change; its cache holds earlier labels, so "
        "new rows are not on the scale of the old ones"
    )
    logger.warning(
        "labels by %s moved by %.2f standard deviations since the previous run "
        "(labeling.max_drift: %g): %s",
        *(name, found["drift"], max_drift, cause),
    )
