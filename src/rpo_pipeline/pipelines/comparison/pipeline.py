from kedro.pipeline import Node, Pipeline

from .nodes import (
    compare_methods,
    render_comparison,
    sample_for_all,
    score_pairs,
    score_samples,
)

FEEDBACK, POLICY, TRAINING = "feedback@pandas", "params:policy", "params:training"
COMPARISON = "params:comparison"
OBJECTIVES = ["params:rpo", "params:sft", "params:kto", "params:dro", "params:qrpo"]


def create_pipeline() -> Pipeline:
    """Objectives at each one's best temperature, over seeds, in one table."""
    return Pipeline(
        [
            Node(
                score_pairs,
                [FEEDBACK, "rewards", "reference", POLICY, TRAINING, COMPARISON, "reference_cache"],
                "comparison_pairs",
                name="score_pairs",
            ),
            Node(
                sample_for_all,
                [
                    *(FEEDBACK, "rewards", "normaliser", "reference", POLICY, "params:labeling"),
                    *("params:rpo", "params:qrpo", TRAINING, COMPARISON, "reference_cache"),
                    "label_cache",
                ],
                "comparison_samples",
                name="sample_for_all",
            ),
            Node(
                score_samples,
                [
                    *(FEEDBACK, "comparison_samples", "reference", POLICY, TRAINING, COMPARISON),
                    "reference_cache",
                ],
                "comparison_rows",
                name="score_samples",
            ),
            Node(
                compare_methods,
                [
                    *(FEEDBACK, "rewards", "reference_logps"),
                    *("comparison_pairs", "comparison_samples", "comparison_rows"),
                    *("reference", POLICY),
                    *(*OBJECTIVES, TRAINING, "params:evaluation", COMPARISON),
                    *("comparison_workspace", "reference_cache", "label_cache"),
                ],
                "comparison",
                name="compare_methods",
            ),
            Node(render_comparison, "comparison", "comparison_page", name="render_comparison"),
        ]
    )
