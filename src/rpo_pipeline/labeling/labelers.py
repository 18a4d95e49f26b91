"""The protocol of labelers, which give raw rewards; labelers of ratings, of rules, of several."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.ingestion import render_prompt
from rpo_pipeline.labeling.scorers import build_scorers
from rpo_pipeline.params import RESERVED, EnsembleParams, LabelerSettings, RulesParams
from rpo_pipeline.storage import Definition, result_key

DISAGREEMENT = "disagreement"
"""Name of the component that holds the standard deviation of a row's raw rewards over members."""


class Labeler(Protocol):
    """Gives raw rewards to rows."""

    @property
    def name(self) -> str:
        """Value of the column ``labeler``."""

    @property
    def fingerprint(self) -> str:
        """Hash of what labels depend on beside the text: settings, weights, code, libraries."""

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows of row_id, prompt_id, prompt, response, raw_reward (null where unrated).

        The columns are raw_reward (null where it cannot label) and one per component, with the
        index of the rows.
        """


def settings_fingerprint(
    settings: LabelerSettings,
    *parts: str,
    code: Iterable[Definition],
    libraries: Iterable[str] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> str:
    """Hash what a labeler's answers depend on beside the text: 32 hexadecimal digits.

    Names, scale and offset of the settings do not count, nor do the ignored fields, which change
    how an answer is computed, but not the answer. Other parts, such as the hash of weights, decide
    answers as well, and so do the functions and classes that compute them. ``libraries`` names
    those whose versions decide the answers; null stands for all that the code uses.
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
    """Labels rows by a weighted sum of scorers."""

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
    """Add a labeler's raw reward, under its name, and its components to a table of rows.

    The answers may lack some rows. If the table already has one of the columns, ``ConfigError`` is
    raised.
    """
    columns = answers.rename(columns={"raw_reward": name})
    taken = sorted({*columns} & {*table, *RESERVED})
    if taken:
        raise ConfigError(
            f"labeler `{name}` gives the column {taken[0]!r}, which the table already has: give "
            "the labeler another `name`, which also becomes the prefix of its components"
        )
    return table.join(columns)


class EnsembleLabeler:
    """Combines the raw rewards of its members, which are in the order of the settings."""

    def __init__(self, settings: EnsembleParams, members: Sequence[Labeler]) -> None:
        self.name = settings.title
        self.fingerprint = settings_fingerprint(
            settings,
            *(member.fingerprint for member in members),
            code=[EnsembleLabeler.label],
            ignored=frozenset({"members"}),
        )
        self._settings = settings
        self._members = members

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows by every member; a row that one of them cannot label gets no label.

        The columns are raw_reward, disagreement, and for each member its raw reward under its name
        and its components.
        """
        table = pd.DataFrame(index=rows.index)
        for member in self._members:
            table = join_components(table, member.label(rows), member.name)
        answers = table[[member.name for member in self._members]].to_numpy(np.float64)
        return table.assign(
            raw_reward=self._combine(answers), **{DISAGREEMENT: answers.std(axis=1)}
        )

    def _combine(self, answers: np.ndarray) -> np.ndarray:
        """Combine raw rewards, shape ``(rows, members)``; the result is NaN where a member's is."""
        if self._settings.combine == "min":
            return np.asarray(answers.min(axis=1))
        mean = np.average(answers, axis=1, weights=self._settings.weights)
        return np.asarray(mean - (self._settings.penalty or 0.0) * answers.std(axis=1))
