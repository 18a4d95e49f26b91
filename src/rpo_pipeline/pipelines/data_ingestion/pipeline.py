from kedro.pipeline import Node, Pipeline

from rpo_pipeline.runner import ALWAYS

from .nodes import (
    account_rows,
    assign_splits,
    build_feedback,
    cluster_prompts,
    describe_data,
    quarantine_rows,
    read_sources,
)

INGESTION = "params:ingestion"


def create_pipeline() -> Pipeline:
    """Feedback logs in, one checked table with splits out."""
    return Pipeline(
        [
            Node(
                read_sources,
                INGESTION,
                ["raw_rows", "rejected_rows"],
                name="read_sources",
                tags=ALWAYS,
            ),
            Node(
                quarantine_rows,
                ["raw_rows", "rejected_rows", INGESTION],
                "quarantine",
                name="quarantine_rows",
            ),
            Node(
                cluster_prompts,
                ["raw_rows", "previous_prompt_clusters", INGESTION],
                "prompt_clusters",
                name="cluster_prompts",
            ),
            Node(
                assign_splits,
                ["raw_rows", "quarantine", "prompt_clusters", "previous_splits", INGESTION],
                "splits",
                name="assign_splits",
            ),
            Node(
                build_feedback,
                ["raw_rows", "splits", INGESTION],
                "feedback@ibis",
                name="build_feedback",
            ),
            Node(
                account_rows,
                ["raw_rows", "rejected_rows", "quarantine", "feedback@ibis", INGESTION],
                "row_account",
                name="account_rows",
            ),
            Node(
                describe_data,
                ["feedback@ibis", "splits", "prompt_clusters"],
                "data_statistics",
                name="describe_data",
            ),
        ]
    )
