"""Labelling tables: who is asked for which rows, and whose answer counts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import ColumnParams, LabelerParams, RulesParams
from rpo_pipeline.rewards.labelers import ColumnLabeler, Labeler, RulesLabeler

logger = logging.getLogger(__name__)


def build_labeler(settings: LabelerParams, cache: Path | None) -> Labeler:
    """Build the labeler that settings describe, with its scale, its names and its cache.

    Args:
        settings: Of any type.
        cache: Folder that costly answers are kept in; null: every answer is a new one.

    Returns:
        A labeler whose components carry the prefix that the settings ask for.
    """
    labeler: Labeler
    match settings:
        case ColumnParams():
            labeler = ColumnLabeler()
        case RulesParams():
            labeler = RulesLabeler(settings)
        case _:
            raise ConfigError(f"no labeler is built from {settings.type!r}")
    return labeler
