"""Nodes of data ingestion."""

from typing import Any

import pandas as pd
from ibis.expr.types import Table

from rpo_pipeline.params import IngestionParams


def read_sources(
    ingestion: IngestionParams, forgotten: pd.DataFrame | None
) -> tuple[Table, pd.DataFrame]:
    """Read every source; what cannot be used, or was erased on request, goes to quarantine."""
    import ibis

    from rpo_pipeline.data import redaction, sources

    rows, quarantine = sources.read_sources(
        ingestion.sources,
        redact=redaction.build_redactor(ingestion.redaction),
        forgotten=set() if forgotten is None else {*forgotten["prompt_id"]},
    )
    return ibis.memtable(rows), quarantine


def count_redactions(
    rows: Table, quarantine: pd.DataFrame, ingestion: IngestionParams
) -> dict[str, Any]:
    """Say what was redacted, by kind."""
    from rpo_pipeline.data import redaction

    return redaction.count_redactions(rows, quarantine, ingestion.redaction)


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
