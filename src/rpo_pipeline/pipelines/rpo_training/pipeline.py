from kedro.pipeline import Node, Pipeline

from .nodes import join_training_rows, settle_objective, train_policy

BLOCKS = ["params:_objectives", "params:training"]


def create_pipeline() -> Pipeline:
    """Targets in, a trained policy out."""
    return Pipeline(
        [
            Node(
                join_training_rows,
                ["scored_rows", "targets", "mismatched_logps"],
                "training_rows",
                name="join_training_rows",
            ),
            Node(settle_objective, BLOCKS, "objective", name="settle_objective"),
            Node(
                train_policy,
                [
                    *("training_rows", "reference", "params:policy", "objective"),
                    *("params:training", "training_workspace", "reference_cache"),
                ],
                ["policy", "training_metrics", "training_summary"],
                name="train_policy",
            ),
        ]
    )
