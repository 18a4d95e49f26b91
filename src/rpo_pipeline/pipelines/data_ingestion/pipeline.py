from kedro.pipeline import Node, Pipeline

from rpo_pipeline.runner import ALWAYS

from .nodes import (
    account_rows,
    assign_splits,
    build_feedback,
    collect_rows,
    count_redactions,
    read_sources,
)


def create_pipeline() -> Pipeline:
    """Feedback logs in, one checked table with splits out."""
    return Pipeline(
        [
            Node(
                read_sources,
                ["params:ingestion", "parts", "forgotten"],
                "source_parts",
                name="read_sources",
                tags=ALWAYS,
            ),
            Node(
                collect_rows,
                ["source_parts", "parts"],
                ["raw_rows@stream", "quarantine"],
                name="collect_rows",
            ),
            Node(
                count_redactions,
                ["raw_rows@ibis", "quarantine", "params:ingestion"],
                "redaction",
                name="count_redactions",
            ),
            Node(
                assign_splits,
                ["raw_rows@ibis", "quarantine", "previous_splits", "params:ingestion"],
                "splits",
                name="assign_splits",
            ),
            Node(
                build_feedback, ["raw_rows@ibis", "splits"], "feedback@ibis", name="build_feedback"
            ),
            Node(
                account_rows,
                ["raw_rows@ibis", "feedback@ibis", "quarantine"],
                "row_account",
                name="account_rows",
            ),
        ]
    )
