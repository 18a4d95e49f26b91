from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS

from . import nodes

FEEDBACK, PROMOTION = "feedback@pandas", "params:promotion"


def create_pipeline() -> Pipeline:
    """A version in the registry, and the champion alias if the gate passed."""
    return Pipeline(
        [
            Node(
                nodes.trace_provenance,
                [FEEDBACK, "reference", "normaliser", "parameters"],
                "version_documents",
                name="trace_provenance",
            ),
            Node(
                nodes.write_model_card,
                [
                    *("summary", "row_account", "data_statistics", "training_summary"),
                    *("partition_health", "version_documents"),
                ],
                "model_card",
                name="write_model_card",
            ),
            Node(
                nodes.register_version,
                [
                    *("policy", "summary", "version_documents", "report", "model_card"),
                    *("previous_registration", PROMOTION, "mlflow_run"),
                ],
                "registered_version",
                name="register_version",
                tags=ALWAYS,
            ),
            Node(
                nodes.name_candidate,
                ["registered_version", "summary", "champion_workspace", PROMOTION, "mlflow_run"],
                "candidate",
                name="name_candidate",
                tags=ALWAYS,
            ),
            Node(
                nodes.measure_candidate,
                [
                    *("candidate", FEEDBACK, "heldout_rows", "reference", "parameters"),
                    *("reference_cache", "label_cache", "mlflow_run"),
                ],
                "candidate_summary",
                name="measure_candidate",
            ),
            Node(
                nodes.promote,
                ["candidate", "candidate_summary", "champion_workspace", PROMOTION, "mlflow_run"],
                "promotion_result",
                name="promote",
                tags=ALWAYS,
            ),
            Node(
                nodes.note_consumed,
                ["source_parts", "promotion_result", "previous_consumed", PROMOTION],
                "consumed",
                name="note_consumed",
            ),
        ]
    )
