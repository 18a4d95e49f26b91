from kedro.pipeline import Node, Pipeline

from rpo_pipeline.runner import ALWAYS

from .nodes import note_consumed, promote, register_version


def create_pipeline() -> Pipeline:
    """A version in the registry, and the champion alias if the gate passed."""
    return Pipeline(
        [
            Node(
                register_version,
                [
                    "policy",
                    "summary",
                    "normaliser",
                    "previous_registration",
                    "params:promotion",
                    "mlflow_run",
                ],
                "registered_version",
                name="register_version",
                tags=ALWAYS,
            ),
            Node(
                promote,
                [
                    "registered_version",
                    "summary",
                    "champion_workspace",
                    "params:promotion",
                    "mlflow_run",
                ],
                "promotion_result",
                name="promote",
                tags=ALWAYS,
            ),
            Node(
                note_consumed,
                ["source_parts", "promotion_result"],
                "consumed",
                name="note_consumed",
            ),
        ]
    )
