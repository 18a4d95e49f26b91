"""Nodes of data ingestion."""

from pathlib import Path
from typing import Any

import pandas as pd
from ibis.expr.types import Table
from pyarrow import RecordBatchReader

from rpo_pipeline.params import IngestionParams


def collect_rows(
    source_parts: list[dict[str, Any]], parts: Path
) -> tuple[RecordBatchReader, pd.DataFrame]:
    """Join the parts, and reject records that cannot be used."""
    from rpo_pipeline.ingestion import read_rejected, read_rows

    return read_rows(source_parts, parts), read_rejected(source_parts, parts)


def quarantine_rows(
    rows: Table, rejected: pd.DataFrame, ingestion: IngestionParams
) -> pd.DataFrame:
    """Put rows that cannot be used into quarantine, and refuse a log with too many of them."""
    from rpo_pipeline.ingestion import check_quarantine, quarantine_conflicts

    quarantine = quarantine_conflicts(rows, rejected, ingestion.conflicts)
    check_quarantine(rows, quarantine, max_share=ingestion.max_quarantine_share)
    return quarantine


def cluster_prompts(rows: Table, previous: Table | None, ingestion: IngestionParams) -> Table:
    """Find near-duplicate prompts."""
    from rpo_pipeline.ingestion import cluster_prompts

    return cluster_prompts(rows, previous, ingestion.near_duplicates)


def assign_splits(
    rows: Table,
    quarantine: pd.DataFrame,  # noqa: ARG001 (a split is given once, so not before the check)
    clusters: Table,
    previous: Table | None,
    ingestion: IngestionParams,
) -> Table:
    """Give every prompt its split, the same to near-duplicates and within a conversation."""
    from rpo_pipeline.ingestion import assign_splits, check_leakage

    given = assign_splits(
        rows,
        clusters,
        previous,
        ingestion.split_shares,
        by_conversation=ingestion.conversations_share_split,
    )
    if ingestion.near_duplicates:
        check_leakage(given, clusters, ingestion.near_duplicates.threshold)
    return given


def build_feedback(rows: Table, splits: Table, ingestion: IngestionParams) -> Table:
    """Fold duplicates and settle conflicting ratings."""
    from rpo_pipeline.ingestion import build_feedback

    return build_feedback(rows, splits, ingestion.conflicts)


def describe_data(
    rows: Table,
    rejected: pd.DataFrame,
    quarantine: pd.DataFrame,
    feedback: Table,
    splits: Table,
    clusters: Table,
    ingestion: IngestionParams,
) -> tuple[dict[str, int], dict[str, Any], dict[str, Any]]:
    """Report where every record went, statistics of the data, and redactions by kind."""
    from rpo_pipeline.ingestion import account_rows, count_redactions, describe_data

    account = account_rows(rows, rejected, quarantine, feedback, ingestion.conflicts)
    redacted = count_redactions(rows, rejected, ingestion.redaction)
    return account, describe_data(feedback, splits, clusters), redacted
