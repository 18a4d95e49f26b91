from kedro.pipeline import Node, Pipeline

from rpo_pipeline.runner import ALWAYS

from .nodes import account_rows, assign_splits, build_feedback, count_redactions, read_sources


def create_pipeline() -> Pipeline:
    """Feedback logs in, one checked table with splits out."""
    return Pipeline(
        [
            Node(
                read_sources,
                ["params:ingestion", "parts", "forgotten"],
                ["raw_rows", "quarantine"],
                name="read_sources",
                tags=ALWAYS,
            ),
            Node(
                count_redactions,
                ["raw_rows", "quarantine", "params:ingestion"],
                "redaction",
                name="count_redactions",
            ),
            Node(
                assign_splits,
                ["raw_rows", "quarantine", "previous_splits", "params:ingestion"],
                "splits",
                name="assign_splits",
            ),
            Node(build_feedback, ["raw_rows", "splits"], "feedback@ibis", name="build_feedback"),
            Node(
                account_rows,
                ["raw_rows", "feedback@ibis", "quarantine"],
                "row_account",
                name="account_rows",
            ),
        ]
    )
