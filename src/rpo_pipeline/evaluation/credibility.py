"""Whether what judges the models can be trusted: its labels beside ratings that it never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.labeling import against_length, compared_rows, label_responses
from rpo_pipeline.params import EnsembleParams, LabelerParams

LEARN_FROM_RATINGS = {"fitted_reward_model", "reward_model"}
"""Types whose weights may have been fitted on the ratings of train."""


def measure_labelers(
    feedback: pd.DataFrame, labelers: Sequence[LabelerParams], num_rows: int, cache: Path
) -> dict[str, Any]:
    """Compare every labeler of evaluation, and its components, with held-out ratings.

    What reads nothing but its settings (``rules``, ``judge``) is held out from every rating; what
    may have been fitted on ratings, from those outside the train split only.

    Args:
        feedback: Columns prompt_id, prompt, response, raw_reward (null where nobody rated), split.
        labelers: Of evaluation; the first judges.
        num_rows: Rated rows to label, at most, as ``labeling.agreement_rows`` says.
        cache: Of costly labels.

    Returns:
        ``num_rated``: rows of the log that people rated; ``judge``: name of the first labeler;
        ``columns``: of each labeler and component, what ``against_length`` finds; ``ranges``: its
        lowest and highest value, with ``raw_reward`` for the first labeler's.
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
