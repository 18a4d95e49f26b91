from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS
from rpo_pipeline.ingestion import read_log

from .nodes import (
    assign_splits,
    build_feedback,
    cluster_prompts,
    collect_rows,
    describe_data,
    quarantine_rows,
)

INGESTION, RAW_ROWS = "params:ingestion", "raw_rows@ibis"


def create_pipeline() -> Pipeline:
    """Feedback logs in, one checked table with splits out."""
    return Pipeline(
        [
            Node(
                read_log,
                [INGESTION, "parts", "forgotten"],
                "source_parts",
                name="read_sources",
                tags=ALWAYS,
            ),
            Node(
                collect_rows,
                ["source_parts", "parts"],
                ["raw_rows@stream", "rejected_rows"],
                name="collect_rows",
            ),
            Node(
                quarantine_rows,
                [RAW_ROWS, "rejected_rows", INGESTION],
                "quarantine",
                name="quarantine_rows",
            ),
            Node(
                cluster_prompts,
                [RAW_ROWS, "previous_prompt_clusters", INGESTION],
                "prompt_clusters",
                name="cluster_prompts",
            ),
            Node(
                assign_splits,
                [RAW_ROWS, "quarantine", "prompt_clusters", "previous_splits", INGESTION],
                "splits",
                name="assign_splits",
            ),
            Node(
                build_feedback,
                [RAW_ROWS, "splits", INGESTION],
                "feedback@ibis",
                name="build_feedback",
            ),
            Node(
                describe_data,
                [
                    *(RAW_ROWS, "rejected_rows", "quarantine", "feedback@ibis"),
                    *("splits", "prompt_clusters", INGESTION),
                ],
                ["row_account", "data_statistics", "redaction"],
                name="describe_data",
            ),
        ]
    )
