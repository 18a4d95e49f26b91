from kedro.pipeline import Node, Pipeline

from .nodes import estimate_partition, prepare_reference, sample_reference, score_reference

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"
ESTIMATION = ["params:rpo", "params:qrpo", TRAINING]


def create_pipeline() -> Pipeline:
    """The frozen reference, its log-probabilities, log_z of each prompt, the target of each row."""
    return Pipeline(
        [
            Node(
                prepare_reference,
                ["existing_reference", FEEDBACK, POLICY, TRAINING, "reference_workspace"],
                "reference",
                name="prepare_reference",
            ),
            Node(
                score_reference,
                [FEEDBACK, "reference", POLICY, TRAINING, "reference_cache"],
                "reference_logps",
                name="score_reference",
            ),
            Node(
                sample_reference,
                [
                    *(FEEDBACK, "rewards", "normaliser", "reference", POLICY, "params:labeling"),
                    *(*ESTIMATION, "reference_cache"),
                ],
                "reference_samples",
                name="sample_reference",
            ),
            Node(
                estimate_partition,
                [FEEDBACK, "rewards", "reference_logps", "reference_samples", *ESTIMATION],
                ["partition", "targets", "partition_health"],
                name="estimate_partition",
            ),
        ]
    )
