"""An ensemble combines several labelers into one and measures how far they disagree."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rpo_pipeline.labeling.labelers import Labeler, join_components, settings_fingerprint
from rpo_pipeline.params import EnsembleParams

DISAGREEMENT = "disagreement"
"""Name of the component that holds the standard deviation of a row's raw rewards over members."""


class EnsembleLabeler:
    """Combines the raw rewards of its members.

    Args:
        settings: Way of combining, weights and penalty.
        members: Labelers in the order of the settings.
    """

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

        Args:
            rows: Rows as for ``Labeler.label``.

        Returns:
            raw_reward, disagreement, and for each member its raw reward under its name and its
            components.
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
