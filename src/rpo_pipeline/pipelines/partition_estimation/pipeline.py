from kedro.pipeline import Node, Pipeline

from .nodes import (
    estimate_partition,
    prepare_reference,
    sample_reference,
    score_mismatched,
    score_reference,
)


def create_pipeline() -> Pipeline:
    """The frozen reference, its log-probabilities, log_z of each prompt, the target of each row."""
    return Pipeline(
        [
            Node(
                prepare_reference,
                [
                    "existing_reference",
                    "feedback@pandas",
                    "params:policy",
                    "params:training",
                    "reference_workspace",
                ],
                "reference",
                name="prepare_reference",
            ),
            Node(
                score_reference,
                [
                    "feedback@pandas",
                    "reference",
                    "params:policy",
                    "params:training",
                    "reference_cache",
                ],
                "reference_logps",
                name="score_reference",
            ),
            Node(
                score_mismatched,
                [
                    "feedback@pandas",
                    "rewards",
                    "reference",
                    "params:policy",
                    "params:training",
                    "reference_cache",
                ],
                "mismatched_logps",
                name="score_mismatched",
            ),
            Node(
                sample_reference,
                [
                    "feedback@pandas",
                    "rewards",
                    "normaliser",
                    "reference",
                    "params:policy",
                    "params:labeling",
                    "params:rpo",
                    "params:qrpo",
                    "params:training",
                    "reference_cache",
                ],
                "reference_samples",
                name="sample_reference",
            ),
            Node(
                estimate_partition,
                [
                    "feedback@pandas",
                    "rewards",
                    "reference_logps",
                    "reference_samples",
                    "params:rpo",
                    "params:qrpo",
                    "params:training",
                ],
                ["partition", "targets", "partition_health"],
                name="estimate_partition",
            ),
        ]
    )
