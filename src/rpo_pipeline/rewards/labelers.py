"""Labelers give a raw_reward to a row.

``column`` takes the rating that people gave; ``rules`` scores any text. Labelers are ranked: a row
takes the raw_reward of the first that has one.
"""

import logging
from collections.abc import Sequence

import pandas as pd

from rpo_pipeline.data.chats import render_prompt
from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import LabelerParams
from rpo_pipeline.rewards.scorers import build_scorers

logger = logging.getLogger(__name__)


def label_responses(
    prompts: Sequence[str], responses: Sequence[str], labelers: Sequence[LabelerParams]
) -> pd.DataFrame:
    """Label new text with the first labeler that can.

    Args:
        prompts: One per response.
        responses: What to label.
        labelers: In order of rank.

    Returns:
        In the order of the input: raw_reward, labeler, and one column per component.

    Raises:
        ConfigError: If no labeler scores new text.
    """
    for settings in labelers:
        if settings.scores_new_text:
            return _label_by_rules(prompts, responses, settings)
    names = [settings.type for settings in labelers]
    raise ConfigError(f"none of the labelers {names} can score new text; add `rules`")


def label_feedback(feedback: pd.DataFrame, labelers: Sequence[LabelerParams]) -> pd.DataFrame:
    """Label every row of the feedback that some labeler has a raw_reward for.

    Args:
        feedback: Columns row_id, prompt, response, raw_reward (null where nobody rated).
        labelers: By rank.

    Returns:
        row_id, raw_reward, labeler and components, one line per labelled row, by row_id.

    Raises:
        DataError: If no row got a raw_reward.
    """
    labelled: list[pd.DataFrame] = []
    rest = feedback
    for settings in labelers:
        labels = _label(rest, settings)
        labelled.append(labels)
        rest = rest[~rest["row_id"].isin(labels["row_id"])]
        logger.info("labeler %s: %d rows", settings.type, len(labels))
    # An empty frame would turn the components of the others into objects.
    found = [labels for labels in labelled if not labels.empty]
    if not found:
        raise DataError(
            f"none of the {len(feedback)} rows has a reward: nobody rated them, and no labeler "
            "scores text (add `rules` to labeling.labelers)"
        )
    if len(rest):
        logger.warning("%d rows have no reward and take no part in training", len(rest))
    return pd.concat(found).sort_values("row_id", ignore_index=True)


def _label(rows: pd.DataFrame, settings: LabelerParams) -> pd.DataFrame:
    if settings.type == "column":
        rated = rows.loc[rows["raw_reward"].notna(), ["row_id", "raw_reward"]]
        return rated.assign(labeler="column")
    labels = _label_by_rules(rows["prompt"].tolist(), rows["response"].tolist(), settings)
    labels.insert(0, "row_id", rows["row_id"].to_numpy())
    return labels


def _label_by_rules(
    prompts: Sequence[str], responses: Sequence[str], settings: LabelerParams
) -> pd.DataFrame:
    scorers = build_scorers(settings)
    prompts = [render_prompt(prompt) for prompt in prompts]
    components = pd.DataFrame(
        {
            name: [score(p, r) for p, r in zip(prompts, responses, strict=True)]
            for name, score in scorers.items()
        }
    )
    weighted = sum(weight * components[name] for name, weight in settings.weights.items())
    raw_reward = settings.offset + weighted
    return components.assign(raw_reward=raw_reward, labeler="rules")
