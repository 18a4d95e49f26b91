"""Compares the labelers of evaluation with ratings that they were not fitted on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.labeling import against_length, compared_rows, label_responses
from rpo_pipeline.params import EnsembleParams, LabelerParams

LEARN_FROM_RATINGS = {"fitted_reward_model", "reward_model"}
"""Types of labelers whose weights may have been fitted on the ratings of train."""


def measure_labelers(
    feedback: pd.DataFrame, labelers: Sequence[LabelerParams], num_rows: int, cache: Path
) -> dict[str, Any]:
    """Compare every labeler of evaluation, and its components, with held-out ratings.

    All ratings are held out from labelers that are not fitted (``rules``, ``judge``). If a labeler
    may have been fitted on ratings, only those outside the train split are used.

    At most ``num_rows`` rated rows are labelled (``labeling.agreement_rows``).

    The result holds ``num_rated``: number of rated rows in the log; ``judge``: name of the first
    labeler, which gives ``reward_mean``; ``columns``: result of ``against_length`` for each labeler
    and component; ``ranges``: lowest and highest value of each, with ``raw_reward`` for the first.
    """
    rated = feedback[feedback["raw_reward"].notna()]
    held_out = rated if not any(map(_learns, labelers)) else rated[rated["split"] != "train"]
    rows = held_out[compared_rows(held_out, num_rows)].reset_index(drop=True)
    judge = labelers[0].title
    found: dict[str, Any] = {"num_rated": len(rated), "judge": judge, "columns": {}, "ranges": {}}
    if rows.empty:
        return found
    texts = rows["prompt"].tolist(), rows["response"].tolist()
    labels = label_responses(*texts, labelers, cache, every=True)
    rows = rows.rename(columns={"raw_reward": "rating"})
    for name in labels.select_dtypes("number"):
        known = labels[name].dropna()
        if len(known):
            found["ranges"][name] = [float(known.min()), float(known.max())]
        if name != "raw_reward":
            compared = rows.loc[known.index, ["prompt_id", "response", "rating"]]
            found["columns"][name] = against_length(compared.assign(label=known))
    return found


def _learns(labeler: LabelerParams) -> bool:
    if isinstance(labeler, EnsembleParams):
        return any(map(_learns, labeler.members))
    return labeler.type in LEARN_FROM_RATINGS
