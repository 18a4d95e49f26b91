from kedro.pipeline import Node, Pipeline

from .nodes import join_training_rows, train_policy


def create_pipeline() -> Pipeline:
    """Targets in, a trained policy out."""
    return Pipeline(
        [
            Node(
                join_training_rows,
                ["feedback@pandas", "rewards", "reference_logps", "targets", "mismatched_logps"],
                "training_rows",
                name="join_training_rows",
            ),
            Node(
                train_policy,
                [
                    "training_rows",
                    "reference",
                    "params:policy",
                    "params:rpo",
                    "params:sft",
                    "params:kto",
                    "params:dro",
                    "params:training",
                    "training_workspace",
                    "reference_cache",
                ],
                ["policy", "training_metrics", "training_summary"],
                name="train_policy",
            ),
        ]
    )
