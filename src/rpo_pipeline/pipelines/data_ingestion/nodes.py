"""Nodes of data ingestion."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from ibis.expr.types import Table
from pyarrow import RecordBatchReader

from rpo_pipeline.params import IngestionParams

logger = logging.getLogger(__name__)


def read_sources(
    ingestion: IngestionParams, parts: Path, forgotten: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Read every file of the sources that is new or has changed, less what is forgotten."""
    from rpo_pipeline.ingestion import sources
    from rpo_pipeline.ingestion.redaction import Privacy

    erased = frozenset() if forgotten is None else frozenset(forgotten["prompt_id"])
    if forgotten is not None and not forgotten.get("is_done", pd.Series(dtype=bool)).all():
        logger.warning(
            "an erasure did not come to its end: `python -m rpo_pipeline forget` goes on with it"
        )
    return sources.read_sources(ingestion.sources, parts, Privacy(ingestion.redaction, erased))


def count_redactions(
    rows: Table, quarantine: pd.DataFrame, ingestion: IngestionParams
) -> dict[str, Any]:
    """Say what was redacted, by kind."""
    from rpo_pipeline.ingestion import redaction

    return redaction.count_redactions(rows, quarantine, ingestion.redaction)


def collect_rows(
    source_parts: list[dict[str, Any]], parts: Path
) -> tuple[RecordBatchReader, pd.DataFrame]:
    """Put the parts together; what cannot be used is rejected."""
    from rpo_pipeline.ingestion import sources

    return sources.read_rows(source_parts, parts), sources.read_rejected(source_parts, parts)


def quarantine_rows(
    rows: Table, rejected: pd.DataFrame, ingestion: IngestionParams
) -> pd.DataFrame:
    """Put aside what cannot be used, unless it is too much to go on."""
    from rpo_pipeline.ingestion import feedback

    quarantine = feedback.quarantine_conflicts(rows, rejected, ingestion.conflicts)
    feedback.check_quarantine(rows, quarantine, max_share=ingestion.max_quarantine_share)
    return quarantine


def cluster_prompts(rows: Table, previous: Table | None, ingestion: IngestionParams) -> Table:
    """Find near-duplicate prompts."""
    from rpo_pipeline.ingestion import near_duplicates

    return near_duplicates.cluster_prompts(rows, previous, ingestion.near_duplicates)


def assign_splits(
    rows: Table,
    quarantine: pd.DataFrame,  # noqa: ARG001 (a split is given once, so not before the check)
    clusters: Table,
    previous: Table | None,
    ingestion: IngestionParams,
) -> Table:
    """Give every prompt its split, the same to near-duplicates and to one conversation."""
    from rpo_pipeline.ingestion import splits

    given = splits.assign_splits(
        rows,
        clusters,
        previous,
        ingestion.split_shares,
        by_conversation=ingestion.conversations_share_split,
    )
    if ingestion.near_duplicates:
        splits.check_leakage(given, clusters, ingestion.near_duplicates.threshold)
    return given


def build_feedback(rows: Table, splits: Table, ingestion: IngestionParams) -> Table:
    """Fold duplicates and settle conflicting ratings."""
    from rpo_pipeline.ingestion import feedback

    return feedback.build_feedback(rows, splits, ingestion.conflicts)


def account_rows(
    rows: Table,
    rejected: pd.DataFrame,
    quarantine: pd.DataFrame,
    feedback: Table,
    ingestion: IngestionParams,
) -> dict[str, int]:
    """Say where every record went."""
    from rpo_pipeline.ingestion.feedback import account_rows

    return account_rows(rows, rejected, quarantine, feedback, ingestion.conflicts)


def describe_data(feedback: Table, splits: Table, clusters: Table) -> dict[str, Any]:
    """Say what the data is like."""
    from rpo_pipeline.ingestion import statistics

    return statistics.describe_data(feedback, splits, clusters)
