from kedro.pipeline import Node, Pipeline

from .nodes import (
    add_levels,
    choose_tau,
    estimate_partition,
    join_scores,
    label_samples,
    prepare_reference,
    sample_reference,
    score_mismatched,
    score_reference,
    settle_estimation,
)

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"


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
                settle_estimation,
                ["scored_rows", "params:labeling", "params:rpo", "params:qrpo", TRAINING],
                "estimation",
                name="settle_estimation",
            ),
            Node(
                add_levels,
                ["scored_rows", "reference", POLICY, TRAINING],
                "labelled_rows",
                name="add_levels",
            ),
            Node(
                sample_reference,
                [
                    *("labelled_rows", "reference", POLICY, "estimation", TRAINING),
                    "reference_cache",
                ],
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
                    *("labelled_rows", "reference_samples", "reference", POLICY, "estimation"),
                    *(TRAINING, "params:evaluation", "tau_workspace"),
                ],
                "chosen_tau",
                name="choose_tau",
            ),
            Node(
                estimate_partition,
                ["labelled_rows", "reference_samples", "chosen_tau", "estimation"],
                ["partition", "targets", "partition_health"],
                name="estimate_partition",
            ),
        ]
    )
