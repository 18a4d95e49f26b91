from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS

from .nodes import roll_back


def create_pipeline() -> Pipeline:
    """The previous champion again; asked for twice, it happens once."""
    return Pipeline(
        [
            Node(
                roll_back,
                ["champion_workspace", "params:promotion", "mlflow_run"],
                "rollback_result",
                name="roll_back",
                tags=ALWAYS,
            )
        ]
    )
