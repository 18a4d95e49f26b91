from kedro.pipeline import Node, Pipeline

from .nodes import promote, register_version


def create_pipeline() -> Pipeline:
    """A version in the registry, and the champion alias if the gate passed."""
    return Pipeline(
        [
            Node(
                register_version,
                ["policy", "summary", "normaliser", "params:promotion", "mlflow_run"],
                "registered_version",
                name="register_version",
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
            ),
        ]
    )
