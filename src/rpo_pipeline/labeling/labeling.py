"""Labels tables: chooses the rows of each labeler, and the label that becomes the raw reward."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.ingestion import prompt_key, row_key
from rpo_pipeline.labeling.label_cache import CachedLabeler, SharedLabeler
from rpo_pipeline.labeling.labelers import (
    ColumnLabeler,
    EnsembleLabeler,
    Labeler,
    RulesLabeler,
    join_components,
)
from rpo_pipeline.params import (
    ColumnParams,
    EnsembleParams,
    FittedRewardModelParams,
    JudgeParams,
    LabelerParams,
    LabelerSettings,
    LabelingParams,
    RewardModelParams,
    RulesParams,
)

logger = logging.getLogger(__name__)


def warn_of_shared_labelers(
    training: Sequence[LabelerParams], evaluation: Sequence[LabelerParams]
) -> None:
    """Warn if the first labeler, which gives ``reward_mean``, has also labelled training rows."""
    presentation = {"name", "scale", "offset"}
    judge = evaluation[0].model_dump(exclude=presentation)
    for labeler in training:
        if labeler.model_dump(exclude=presentation) == judge:
            logger.warning(
                "labeler %s gives reward_mean and has labelled training rows too: a gain by a "
                "labeler that training has seen is weak evidence (give evaluation.labelers "
                "another first one, or evaluation.judge; docs/evaluation.md)",
                evaluation[0].title,
            )


def build_labeler(settings: LabelerParams, cache: Path | None) -> Labeler:
    """Build the labeler that settings describe, with its cache, its scale and its names."""
    labeler: Labeler
    match settings:
        case ColumnParams():
            labeler = ColumnLabeler()
        case RulesParams():
            labeler = RulesLabeler(settings)
        case EnsembleParams():
            members = [build_labeler(member, cache) for member in settings.members]
            labeler = EnsembleLabeler(settings, members)
        case JudgeParams():
            from rpo_pipeline.labeling.judge import JudgeLabeler  # noqa: PLC0415 (an extra)

            labeler = JudgeLabeler(settings, cache)
        case FittedRewardModelParams():
            from rpo_pipeline.labeling.fitted_reward_model import FittedRewardModelLabeler  # noqa: PLC0415 (torch)

            labeler = FittedRewardModelLabeler(settings, cache)
        case RewardModelParams():
            from rpo_pipeline.labeling.reward_model import RewardModelLabeler  # noqa: PLC0415 (torch)

            labeler = RewardModelLabeler(settings)
            if settings.num_processes > 1 or settings.accelerate_config is not None:
                labeler = SharedLabeler(settings, labeler, cache)
            elif cache:
                labeler = CachedLabeler(labeler, cache)
    return ConfiguredLabeler(settings, labeler)


class ConfiguredLabeler:
    """Applies the name, scale and offset of its settings to another labeler.

    The cache of that labeler does not depend on these settings.
    """

    def __init__(self, settings: LabelerSettings, labeler: Labeler) -> None:
        self.name = settings.title
        self.fingerprint = f"{labeler.fingerprint}:{settings.scale:g}:{settings.offset:g}"
        self._settings, self._labeler = settings, labeler

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows; a label that is no finite number counts as missing."""
        answers = self._labeler.label(rows)
        raw_reward = answers.pop("raw_reward").astype(float).replace([np.inf, -np.inf], np.nan)
        if self._settings.name:
            answers = answers.add_prefix(f"{self._settings.name}_")
        scaled = self._settings.offset + self._settings.scale * raw_reward
        return answers.assign(raw_reward=scaled)


def label_responses(
    prompts: Sequence[str],
    responses: Sequence[str],
    labelers: Sequence[LabelerParams],
    cache: Path | None,
    *,
    every: bool = False,
) -> pd.DataFrame:
    """Label new text by the first labeler that can, so that all raw rewards have its scale.

    With ``every`` the raw rewards and components of the other labelers of text are added. In the
    order of the input, the columns are raw_reward (null where the labeler cannot label), labeler,
    and for each labeler used its raw reward under its name and its components. If no labeler scores
    new text, ``ConfigError`` is raised.
    """
    able = [settings for settings in labelers if settings.scores_new_text]
    if not able:
        names = [settings.type for settings in labelers]
        raise ConfigError(f"none of the labelers {names} can score new text; add `rules`")
    pairs = list(zip(prompts, responses, strict=True))
    rows = pd.DataFrame(pairs, columns=["prompt", "response"]).assign(
        row_id=[row_key(*pair) for pair in pairs],
        prompt_id=[prompt_key(prompt) for prompt, _ in pairs],
        raw_reward=np.nan,
    )
    table = pd.DataFrame(index=rows.index)
    for settings in able if every else able[:1]:
        labeler = build_labeler(settings, cache)
        table = join_components(table, labeler.label(rows), labeler.name)
    first = able[0].title
    num_missing = int(table[first].isna().sum())
    if num_missing:
        logger.warning("%s has no answer for %d of %d responses", first, num_missing, len(table))
    table.insert(0, "raw_reward", table[first])
    table.insert(1, "labeler", first)
    return table


def require_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the table of ``label_responses``, in which every response must have a label.

    A gap, which would bias what is computed from the labels, raises ``DataError``.
    """
    missing = labels["raw_reward"].isna()
    if missing.any():
        raise DataError(
            f"{missing.sum()} of {len(labels)} responses got no label from "
            f"{labels['labeler'].iloc[0]}; run again to ask for those alone, or put another "
            "labeler of text first (labeling.labelers, evaluation.labelers)"
        )
    return labels


def label_feedback(
    feedback: pd.DataFrame, labeling: LabelingParams, cache: Path | None
) -> pd.DataFrame:
    """Label every row of the feedback that some labeler can label.

    A rating always outranks a label. Labelers of text also label some rated rows, so that they can
    be compared with people; these labels are kept under the labelers' names and change no reward.

    The feedback holds row_id, prompt_id, prompt, response and raw_reward (null where nobody rated).
    The result holds row_id, raw_reward, labeler and labeler_fingerprint (those of the labeler that
    gave the raw reward), and for each labeler of text its raw reward under its name and its
    components; one line per labelled row, by row_id. If no row has a raw_reward, ``DataError`` is
    raised.
    """
    compared = compared_rows(feedback, labeling.agreement_rows)
    table = feedback[["row_id"]].assign(raw_reward=np.nan, labeler=None, labeler_fingerprint=None)
    ratings_first = sorted(labeling.labelers, key=lambda settings: settings.scores_new_text)
    for settings in ratings_first:
        labeler = build_labeler(settings, cache)
        waiting = table["raw_reward"].isna()
        asked = waiting | compared if settings.scores_new_text else waiting
        answers = labeler.label(feedback[asked])
        taken = waiting & answers["raw_reward"].notna().reindex(table.index, fill_value=False)
        table["raw_reward"] = table["raw_reward"].mask(taken, answers["raw_reward"])
        table["labeler"] = table["labeler"].mask(taken, labeler.name)
        table["labeler_fingerprint"] = table["labeler_fingerprint"].mask(taken, labeler.fingerprint)
        if settings.scores_new_text:
            table = join_components(table, answers, labeler.name)
        logger.info("labeler %s: %d rows", labeler.name, taken.sum())
    labelled = table[table["raw_reward"].notna()]
    _report_gaps(feedback, labelled, labeling)
    return labelled.sort_values("row_id", ignore_index=True)


def compared_rows(feedback: pd.DataFrame, num_rows: int) -> pd.Series:
    """Choose rated rows for labelers of text: whole prompts, and the same ones in every run.

    The feedback holds prompt_id and raw_reward (null where nobody rated). The result tells of each
    row whether it is one of the at most ``num_rows`` that are chosen.
    """
    rated = feedback.loc[feedback["raw_reward"].notna(), "prompt_id"]
    # Ids are hashes, so their order is random; they are reversed because the split depends on
    # their first digits.
    order = rated.sort_values(key=lambda ids: ids.str[::-1], kind="stable")
    return pd.Series(feedback.index.isin(order.index[:num_rows]), feedback.index)


def _report_gaps(feedback: pd.DataFrame, labelled: pd.DataFrame, labeling: LabelingParams) -> None:
    if labelled.empty:
        raise DataError(
            f"none of the {len(feedback)} rows has a reward: nobody rated them, and no labeler "
            "scores text (add `rules` to labeling.labelers)"
        )
    num_rated = int(feedback["raw_reward"].notna().sum())
    if num_rated and all(settings.scores_new_text for settings in labeling.labelers):
        logger.warning(
            "people rated %d rows, and nothing reads their ratings: `column` is not among "
            "labeling.labelers",
            num_rated,
        )
    rest = len(feedback) - len(labelled)
    if rest:
        logger.warning("%d rows have no reward and take no part in training", rest)
