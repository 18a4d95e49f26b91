"""What gives a raw_reward to a row: the protocol of labelers, and the two that cost nothing."""

from collections.abc import Iterable
from typing import Protocol

import pandas as pd

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.ingestion import render_prompt
from rpo_pipeline.labeling.scorers import build_scorers
from rpo_pipeline.params import RESERVED, LabelerSettings, RulesParams
from rpo_pipeline.storage import Definition, result_key


class Labeler(Protocol):
    """Gives raw rewards to rows."""

    @property
    def name(self) -> str:
        """What stands in the column ``labeler``."""

    @property
    def fingerprint(self) -> str:
        """Everything its labels depend on beside the text: settings, weights, code, libraries."""

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows.

        Args:
            rows: Columns row_id, prompt_id, prompt, response, raw_reward (null where unrated).

        Returns:
            On the index of the rows: raw_reward (null where it has no answer) and one column per
            component.
        """


def settings_fingerprint(
    settings: LabelerSettings,
    *parts: str,
    code: Iterable[Definition],
    libraries: Iterable[str] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> str:
    """Name of what a labeler's answers depend on beside the text.

    Args:
        settings: Of the labeler; how its answers are named and scaled does not count.
        *parts: What else decides, such as the content of weights.
        code: What answers.
        libraries: Whose versions decide the answers; null: all that the code rests on.
        ignored: Fields that decide how an answer is computed, but not the answer.

    Returns:
        32 hexadecimal digits.
    """
    dumped = settings.model_dump(mode="json", exclude={"name", "scale", "offset", *ignored})
    return result_key(dumped, *parts, code=code, libraries=libraries)


class ColumnLabeler:
    """The ratings that people gave."""

    name = "column"
    fingerprint = "column"

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Give the ratings as they are."""
        return rows[["raw_reward"]].astype(float)


class RulesLabeler:
    """A weighted sum of scorers.

    Args:
        settings: Weights, words and patterns.
    """

    def __init__(self, settings: RulesParams) -> None:
        self.name = settings.title
        self.fingerprint = settings_fingerprint(settings, code=[RulesLabeler.label, build_scorers])
        self._weights = settings.weights
        self._scorers = build_scorers(settings)

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Score the text, whether it is rated or not; the components are the scorers."""
        pairs = list(zip(rows["prompt"].map(render_prompt), rows["response"], strict=True))
        components = pd.DataFrame(
            {name: [score(*pair) for pair in pairs] for name, score in self._scorers.items()},
            index=rows.index,
            dtype=float,
        )
        weighted = sum(weight * components[name] for name, weight in self._weights.items())
        return components.assign(raw_reward=weighted)


def join_components(table: pd.DataFrame, answers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Put a labeler's raw reward, under its name, and its components beside those of others.

    Args:
        table: What others said, or what is known of the rows.
        answers: As a labeler gives them, for these rows or some of them.
        name: Of the labeler.

    Returns:
        The table with the new columns.

    Raises:
        ConfigError: If a column is there already.
    """
    columns = answers.rename(columns={"raw_reward": name})
    taken = sorted({*columns} & {*table, *RESERVED})
    if taken:
        raise ConfigError(
            f"labeler `{name}` gives the column {taken[0]!r}, which is there already: give the "
            "labeler another `name`, which also becomes the prefix of its components"
        )
    return table.join(columns)
