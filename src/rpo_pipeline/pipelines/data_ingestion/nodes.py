"""Nodes of data ingestion."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from ibis.expr.types import Table

from rpo_pipeline.params import IngestionParams

if TYPE_CHECKING:
    from pyarrow import RecordBatchReader


def read_sources(
    ingestion: IngestionParams, parts: Path, forgotten: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Read every file of the sources that is new or has changed, less what is forgotten."""
    from rpo_pipeline.data import sources
    from rpo_pipeline.data.redaction import Privacy

    erased = frozenset() if forgotten is None else frozenset(forgotten["prompt_id"])
    return sources.read_sources(ingestion.sources, parts, Privacy(ingestion.redaction, erased))


def count_redactions(
    rows: Table, quarantine: pd.DataFrame, ingestion: IngestionParams
) -> dict[str, Any]:
    """Say what was redacted, by kind."""
    from rpo_pipeline.data import redaction

    return redaction.count_redactions(rows, quarantine, ingestion.redaction)


def collect_rows(
    source_parts: list[dict[str, Any]], parts: Path
) -> tuple["RecordBatchReader", pd.DataFrame]:
    """Put the parts together; what could not be used goes to quarantine."""
    from rpo_pipeline.data import sources

    return sources.read_rows(source_parts, parts), sources.read_rejected(source_parts, parts)


def assign_splits(
    rows: Table,
    quarantine: pd.DataFrame,
    previous: Table | None,
    ingestion: IngestionParams,
) -> Table:
    """Give every prompt its split, unless too much was quarantined to go on."""
    from rpo_pipeline.data import feedback, splits

    feedback.check_quarantine(rows, quarantine, max_share=ingestion.max_quarantine_share)
    return splits.assign_splits(rows, previous, ingestion.split_shares)


def build_feedback(rows: Table, splits: Table) -> Table:
    """Fold duplicates and merge ratings."""
    from rpo_pipeline.data import feedback

    return feedback.build_feedback(rows, splits)


def account_rows(rows: Table, feedback: Table, quarantine: pd.DataFrame) -> dict[str, int]:
    """Say where every record went."""
    from rpo_pipeline.data import feedback as feedback_room

    return feedback_room.account_rows(rows, feedback, quarantine)
