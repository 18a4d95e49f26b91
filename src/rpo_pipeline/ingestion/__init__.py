"""Ingestion reads logs of any format into one table of feedback and accounts for every record."""

from rpo_pipeline.ingestion.chats import (
    ROLES,
    Message,
    Prompt,
    as_messages,
    parse_prompt,
    render_prompt,
)
from rpo_pipeline.ingestion.feedback import (
    account_rows,
    build_feedback,
    check_quarantine,
    quarantine_conflicts,
)
from rpo_pipeline.ingestion.near_duplicates import cluster_prompts
from rpo_pipeline.ingestion.quarantine import QUARANTINE_SCHEMA, Reason
from rpo_pipeline.ingestion.redaction import count_redactions
from rpo_pipeline.ingestion.rows import prompt_key, row_key
from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.ingestion.sources import read_log, read_rejected, read_rows
from rpo_pipeline.ingestion.splits import assign_splits, check_leakage
from rpo_pipeline.ingestion.statistics import describe_data
