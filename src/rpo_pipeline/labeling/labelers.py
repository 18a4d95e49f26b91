"""The protocol of labelers, which give raw rewards, and the labelers of ratings and of rules."""

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
        """Value of the column ``labeler``."""

    @property
    def fingerprint(self) -> str:
        """Hash of what labels depend on beside the text: settings, weights, code, libraries."""

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows.

        Args:
            rows: Columns row_id, prompt_id, prompt, response, raw_reward (null where unrated).

        Returns:
            raw_reward (null where it cannot label) and one column per component, with the index of
            the rows.
        """


def settings_fingerprint(
    settings: LabelerSettings,
    *parts: str,
    code: Iterable[Definition],
    libraries: Iterable[str] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> str:
    """Hash what a labeler's answers depend on beside the text.

    Args:
        settings: Settings of the labeler; names, scale and offset do not count.
        *parts: Other values that decide answers, such as the hash of weights.
        code: Functions and classes that compute the answers.
        libraries: Libraries whose versions decide the answers; null for all that the code uses.
        ignored: Fields that change how an answer is computed, but not the answer.

    Returns:
        32 hexadecimal digits.
    """
    dumped = settings.model_dump(mode="json", exclude={"name", "scale", "offset", *ignored})
    return result_key(dumped, *parts, code=code, libraries=libraries)


class ColumnLabeler:
    """Labels rows by the ratings that people gave."""

    name = "column"
    fingerprint = "column"

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the ratings as they are."""
        return rows[["raw_reward"]].astype(float)


class RulesLabeler:
    """Labels rows by a weighted sum of scorers.

    Args:
        settings: Weights, words and patterns.
    """

    def __init__(self, settings: RulesParams) -> None:
        self.name = settings.title
        self.fingerprint = settings_fingerprint(settings, code=[RulesLabeler.label, build_scorers])
        self._weights = settings.weights
        self._scorers = build_scorers(settings)

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rated and unrated rows; the components are the numbers of the scorers."""
        pairs = list(zip(rows["prompt"].map(render_prompt), rows["response"], strict=True))
        components = pd.DataFrame(
            {name: [score(*pair) for pair in pairs] for name, score in self._scorers.items()},
            index=rows.index,
            dtype=float,
        )
        weighted = sum(weight * components[name] for name, weight in self._weights.items())
        return components.assign(raw_reward=weighted)


def join_components(table: pd.DataFrame, answers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Add a labeler's raw reward, under its name, and its components to a table.

    Args:
        table: Table of rows, perhaps with the columns of other labelers.
        answers: Labels of these rows or of some of them.
        name: Name of the labeler.

    Returns:
        The table with the new columns.

    Raises:
        ConfigError: If the table already has one of the columns.
    """
    columns = answers.rename(columns={"raw_reward": name})
    taken = sorted({*columns} & {*table, *RESERVED})
    if taken:
        raise ConfigError(
            f"labeler `{name}` gives the column {taken[0]!r}, which the table already has: give "
            "the labeler another `name`, which also becomes the prefix of its components"
        )
    return table.join(columns)
