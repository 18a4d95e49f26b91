from kedro.pipeline import Node, Pipeline

from .nodes import (
    choose_tau,
    estimate_partition,
    join_scores,
    label_samples,
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
                join_scores,
                [FEEDBACK, "rewards", "reference_logps"],
                "scored_rows",
                name="join_scores",
            ),
            Node(
                score_mismatched,
                ["scored_rows", "reference", POLICY, TRAINING, "reference_cache"],
                "mismatched_logps",
                name="score_mismatched",
            ),
            Node(
                sample_reference,
                ["scored_rows", "reference", POLICY, *ESTIMATION, "reference_cache"],
                "drawn_samples",
                name="sample_reference",
            ),
            Node(
                label_samples,
                ["drawn_samples", "scored_rows", "normaliser", "params:labeling", "label_cache"],
                "reference_samples",
                name="label_samples",
            ),
            Node(
                choose_tau,
                [
                    *("scored_rows", "reference_samples", "reference", POLICY, "params:rpo"),
                    *(TRAINING, "params:evaluation", "tau_workspace"),
                ],
                "chosen_tau",
                name="choose_tau",
            ),
            Node(
                estimate_partition,
                ["scored_rows", "reference_samples", "chosen_tau", *ESTIMATION],
                ["partition", "targets", "partition_health"],
                name="estimate_partition",
            ),
        ]
    )
