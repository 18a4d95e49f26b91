from kedro.pipeline import Node, Pipeline

from .nodes import (
    choose_tau,
    estimate_partition,
    prepare_reference,
    sample_reference,
    score_mismatched,
    score_reference,
)

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"
ESTIMATION = ["params:rpo", "params:qrpo", TRAINING]


def create_pipeline() -> Pipeline:
    """The frozen reference, its log-probabilities, log_z of each prompt, the target of each row."""
    return Pipeline(
        [
            Node(
                prepare_reference,
                [
                    *("existing_reference", FEEDBACK, POLICY, TRAINING, "reference_workspace"),
                    "previous_reference_log",
                ],
                ["reference", "reference_log"],
                name="prepare_reference",
            ),
            Node(
                score_reference,
                [FEEDBACK, "reference", POLICY, TRAINING, "reference_cache"],
                "reference_logps",
                name="score_reference",
            ),
            Node(
                score_mismatched,
                [FEEDBACK, "rewards", "reference", POLICY, TRAINING, "reference_cache"],
                "mismatched_logps",
                name="score_mismatched",
            ),
            Node(
                sample_reference,
                [
                    *(FEEDBACK, "rewards", "normaliser", "reference", POLICY, "params:labeling"),
                    *(*ESTIMATION, "reference_cache", "label_cache"),
                ],
                "reference_samples",
                name="sample_reference",
            ),
            Node(
                choose_tau,
                [
                    FEEDBACK,
                    "rewards",
                    "reference_logps",
                    "reference_samples",
                    "reference",
                    POLICY,
                    *ESTIMATION,
                    "params:evaluation",
                    "tau_workspace",
                ],
                "chosen_tau",
                name="choose_tau",
            ),
            Node(
                estimate_partition,
                [
                    FEEDBACK,
                    "rewards",
                    "reference_logps",
                    "reference_samples",
                    "chosen_tau",
                    *ESTIMATION,
                ],
                ["partition", "targets", "partition_health"],
                name="estimate_partition",
            ),
        ]
    )
