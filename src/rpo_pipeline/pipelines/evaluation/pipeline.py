from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS

from .nodes import (
    compare_models,
    fetch_champion,
    generate_responses,
    judge_generations,
    label_generations,
    measure_labelers,
    render_report,
    run_tasks,
    score_heldout,
    summarise,
)

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"
EVALUATION, PROMOTION = "params:evaluation", "params:promotion"


def create_pipeline() -> Pipeline:
    """Held-out prompts in, numbers with intervals, a gate decision and a report out."""
    return Pipeline(
        [
            Node(
                fetch_champion,
                [
                    "policy",
                    "previous_registration",
                    "previous_champion",
                    "champion_workspace",
                    PROMOTION,
                    "mlflow_run",
                ],
                "champion",
                name="fetch_champion",
                tags=ALWAYS,
            ),
            Node(
                generate_responses,
                [
                    *(FEEDBACK, "reference", "policy", "champion", POLICY, EVALUATION, TRAINING),
                    "reference_cache",
                ],
                "generations",
                name="generate_responses",
            ),
            Node(
                label_generations,
                [
                    *("generations", FEEDBACK, "rewards", "params:labeling", EVALUATION),
                    "label_cache",
                ],
                "generation_rewards",
                name="label_generations",
            ),
            Node(
                measure_labelers,
                [FEEDBACK, "fitted_reward_models", "params:labeling", EVALUATION, "label_cache"],
                "labeler_agreement",
                name="measure_labelers",
            ),
            Node(
                judge_generations,
                ["generations", FEEDBACK, EVALUATION, "label_cache"],
                "judge_verdicts",
                name="judge_generations",
            ),
            Node(
                score_heldout,
                [
                    FEEDBACK,
                    "rewards",
                    "reference_logps",
                    "policy",
                    "chosen_tau",
                    POLICY,
                    "params:rpo",
                    "params:dro",
                    TRAINING,
                    EVALUATION,
                ],
                "heldout",
                name="score_heldout",
            ),
            Node(
                compare_models,
                [
                    *("generation_rewards", "heldout", "judge_verdicts", "labeler_agreement"),
                    *(EVALUATION, TRAINING),
                ],
                "evaluation_metrics",
                name="compare_models",
            ),
            Node(
                run_tasks,
                ["reference", "policy", "champion", POLICY, EVALUATION, TRAINING],
                "task_metrics",
                name="run_tasks",
            ),
            Node(
                summarise,
                [
                    *("evaluation_metrics", "task_metrics", "labeler_agreement", "champion"),
                    *(PROMOTION, "mlflow_run"),
                ],
                "summary",
                name="summarise",
            ),
            Node(
                render_report,
                [
                    "summary",
                    "generation_rewards",
                    "heldout",
                    "row_account",
                    "quarantine",
                    "source_parts",
                    "data_statistics",
                    "redaction",
                    "label_report",
                    "reward_report",
                    "partition",
                    "partition_health",
                    "training_metrics",
                    "reference",
                    "policy",
                    "parameters",
                    "mlflow_run",
                ],
                "report",
                name="render_report",
            ),
        ]
    )
