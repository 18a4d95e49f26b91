"""Measures how labels agree with ratings by people, and writes the report on labels."""

import logging
import math
from typing import Any

import pandas as pd
from scipy.stats import kendalltau, spearmanr

from rpo_pipeline.labeling.labelers import DISAGREEMENT
from rpo_pipeline.labeling.length_baseline import count_words
from rpo_pipeline.params import LabelerParams, LabelingParams

logger = logging.getLogger(__name__)

SCALES_APART = 3.0
"""Ratio of the standard deviations of labels and ratings from which on their scales differ."""


def agreement(
    labels: pd.Series, ratings: pd.Series, prompt_ids: pd.Series
) -> dict[str, float | int | None]:
    """Compare labels with ratings of the same rows; none of both is missing.

    Returns n, the number of rows; spearman over all rows; num_pairs, the number of pairs of
    responses to one prompt that people rated differently; pair_accuracy, the share of pairs that
    the labels put in the same order, equal labels counting half. Null if nothing can be compared.
    """
    num_pairs, in_order = _pairs(labels, ratings, prompt_ids)
    can_rank = labels.nunique() > 1 and ratings.nunique() > 1
    return {
        "n": len(labels),
        "spearman": float(spearmanr(labels, ratings)[0]) if can_rank else None,
        "num_pairs": num_pairs,
        "pair_accuracy": (1 + in_order / num_pairs) / 2 if num_pairs else None,
    }


def _pairs(labels: pd.Series, ratings: pd.Series, prompt_ids: pd.Series) -> tuple[int, int]:
    """Count the pairs within prompts that people rated differently, and compare their order.

    The second number is that of pairs in the same order less that of pairs in the opposite order.
    Kendall's tau gives both without a list of pairs, of which 10,000 responses to one prompt have
    50 million. Prompts are numbered alike in both orders, so pairs across prompts agree.
    """
    table = pd.DataFrame({"label": labels, "rating": ratings, "prompt_id": prompt_ids})
    label, rating = (table.groupby(["prompt_id", name]).ngroup() for name in ("label", "rating"))
    every = _num_pairs(pd.Series([len(table)]))
    apart = every - _num_pairs(prompt_ids.value_counts())
    differing = [every - _num_pairs(codes.value_counts()) for codes in (label, rating)]
    if not all(differing):
        return differing[1], 0
    tau = kendalltau(label, rating).statistic
    in_order = tau * math.sqrt(differing[0]) * math.sqrt(differing[1])
    return differing[1] - apart, round(in_order) - apart


def _num_pairs(sizes: pd.Series) -> int:
    """Count the pairs within groups of these sizes."""
    return int((sizes * (sizes - 1) // 2).sum())


def label_report(
    labels: pd.DataFrame,
    feedback: pd.DataFrame,
    labeling: LabelingParams,
    drift: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Report which labeler labelled the rows, and how far its labels can be trusted.

    The feedback holds row_id, prompt_id, response and raw_reward. Returns ``rows``: the number of
    rows that each labeler gave the reward of, and ``none``, those without a reward; ``labelers``:
    for each labeler of text its fingerprint, the mean and standard deviation of its raw rewards,
    its ``agreement`` with people, that of ``longer_is_better`` on the same rows, the ``scale`` and
    ``offset`` that would put it ``on_the_scale_of_ratings``, its ``disagreement`` (ensembles) and
    its ``drift``.
    """
    counts = labels["labeler"].value_counts()
    known = feedback.rename(columns={"raw_reward": "rating"})
    table = known[["row_id", "prompt_id", "response", "rating"]].merge(labels, on="row_id")
    return {
        "rows": {s.title: int(counts.get(s.title, 0)) for s in labeling.labelers}
        | {"none": len(feedback) - len(labels)},
        "labelers": [
            _describe(settings, table, drift.get(settings.title))
            for settings in labeling.labelers
            if settings.scores_new_text
        ],
    }


def _describe(
    settings: LabelerParams, table: pd.DataFrame, drift: dict[str, Any] | None
) -> dict[str, Any]:
    answered = table[table[settings.title].notna()]
    own = answered.loc[answered["labeler"] == settings.title, "labeler_fingerprint"]
    rated = answered[answered["rating"].notna()]
    matching = _matching(settings, rated[settings.title], rated["rating"])
    if matching and not own.empty:
        _warn_of_scale(settings, matching)
    return {
        "labeler": settings.title,
        "fingerprint": None if own.empty else own.iloc[0],
        "n": len(answered),
        **moments(answered[settings.title]),
        "agreement": agreement(rated[settings.title], rated["rating"], rated["prompt_id"]),
        "longer_is_better": agreement(
            count_words(rated["response"]), rated["rating"], rated["prompt_id"]
        ),
        "on_the_scale_of_ratings": matching,
        "disagreement": _disagreement(settings, answered),
        "drift": drift,
    }


def _matching(
    settings: LabelerParams, labels: pd.Series, ratings: pd.Series
) -> dict[str, float] | None:
    """Compute the settings that give the labels the mean and deviation of the ratings."""
    if labels.nunique() < 2 or ratings.nunique() < 2:
        return None
    factor = float(ratings.std() / labels.std())
    offset = float(ratings.mean()) - factor * float(labels.mean() - settings.offset)
    return {"scale": settings.scale * factor, "offset": offset}


def _warn_of_scale(settings: LabelerParams, matching: dict[str, float]) -> None:
    """Warn of labels on another scale, from which a model learns which rows were rated."""
    if not 1 / SCALES_APART < matching["scale"] / settings.scale < SCALES_APART:
        logger.warning(
            "labels by %s are spread %.2g times as far as ratings of the same rows: give it "
            "scale: %.3g and offset: %.3g (labeling.labelers)",
            *(settings.title, settings.scale / matching["scale"]),
            *(matching["scale"], matching["offset"]),
        )


def _disagreement(settings: LabelerParams, answered: pd.DataFrame) -> dict[str, Any] | None:
    if settings.type != "ensemble":
        return None
    column = f"{settings.name}_{DISAGREEMENT}" if settings.name else DISAGREEMENT
    largest = answered[column].max()
    found = {"n": len(answered), **moments(answered[column])}
    return found | {"max": None if pd.isna(largest) else float(largest)}


def moments(values: pd.Series) -> dict[str, float | None]:
    """Compute mean and standard deviation, which are null without any value."""
    if not values.notna().any():
        return {"mean": None, "std": None}
    return {"mean": float(values.mean()), "std": float(values.std(ddof=0))}
