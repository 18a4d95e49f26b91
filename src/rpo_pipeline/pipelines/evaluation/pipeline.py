from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import ALWAYS

from . import nodes

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"
EVALUATION, PROMOTION = "params:evaluation", "params:promotion"


def create_pipeline() -> Pipeline:
    """Held-out prompts in, numbers with intervals, a gate decision and a report out."""
    return Pipeline(
        [
            Node(
                nodes.fetch_champion,
                [
                    *("policy", "previous_registration", "previous_champion"),
                    *("champion_workspace", PROMOTION, "mlflow_run"),
                ],
                "champion",
                name="fetch_champion",
                tags=ALWAYS,
            ),
            Node(
                nodes.hold_out_rows,
                [
                    *(FEEDBACK, "rewards", "reference_logps", "partition_health"),
                    *("params:dro", "params:rebel", TRAINING, EVALUATION),
                ],
                "heldout_rows",
                name="hold_out_rows",
            ),
            Node(
                nodes.generate_responses,
                [
                    *("heldout_rows", "reference", "policy", "champion"),
                    *(POLICY, EVALUATION, TRAINING, "reference_cache"),
                ],
                "generations",
                name="generate_responses",
            ),
            Node(
                nodes.label_generations,
                [
                    *("generations", FEEDBACK, "heldout_rows", "params:labeling", EVALUATION),
                    "label_cache",
                ],
                "generation_rewards",
                name="label_generations",
            ),
            Node(
                nodes.measure_labelers,
                [FEEDBACK, "fitted_reward_models", "params:labeling", EVALUATION, "label_cache"],
                "labeler_agreement",
                name="measure_labelers",
            ),
            Node(
                nodes.judge_generations,
                ["generations", FEEDBACK, EVALUATION, "label_cache"],
                "judge_verdicts",
                name="judge_generations",
            ),
            Node(
                nodes.score_heldout,
                ["heldout_rows", "policy", POLICY, "params:rpo", TRAINING],
                "heldout",
                name="score_heldout",
            ),
            Node(
                nodes.run_tasks,
                ["reference", "policy", "champion", POLICY, EVALUATION, TRAINING],
                "task_metrics",
                name="run_tasks",
            ),
            Node(
                nodes.compare_models,
                [
                    *("generation_rewards", "heldout", "judge_verdicts", "labeler_agreement"),
                    *("task_metrics", EVALUATION, TRAINING),
                ],
                "evaluation_metrics",
                name="compare_models",
            ),
            Node(
                nodes.summarise,
                ["evaluation_metrics", "labeler_agreement", "champion", PROMOTION, "mlflow_run"],
                "summary",
                name="summarise",
            ),
            Node(
                nodes.gather_data_reports,
                [
                    *("row_account", "quarantine", "data_statistics", "redaction"),
                    *("label_report", "reward_report"),
                ],
                "data_reports",
                name="gather_data_reports",
            ),
            Node(
                nodes.gather_reports,
                ["data_reports", "source_parts", "partition_health", "reference", "policy"],
                "reports",
                name="gather_reports",
            ),
            Node(
                nodes.render_report,
                [
                    *("summary", "generation_rewards", "heldout", "reports", "partition"),
                    *("training_metrics", "parameters", "mlflow_run"),
                ],
                "report",
                name="render_report",
            ),
        ]
    )
