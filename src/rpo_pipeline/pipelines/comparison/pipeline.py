from kedro.pipeline import Node, Pipeline

from ..partition_estimation.nodes import label_samples
from .nodes import (
    choose_rows,
    compare_methods,
    gather_rows,
    plan_comparison,
    render_comparison,
    sample_for_all,
    score_pairs,
)

ROWS = "comparison_log"
POLICY, TRAINING, COMPARISON = "params:policy", "params:training", "params:comparison"
BLOCKS = ["params:labeling", POLICY, "params:_objectives", TRAINING, "params:evaluation"]
REFERENCE = ["reference", POLICY, TRAINING, COMPARISON, "reference_cache"]


def create_pipeline() -> Pipeline:
    """Objectives at the same divergence from the reference, over seeds, in one table."""
    return Pipeline(
        [
            Node(plan_comparison, BLOCKS, "comparison_plan", name="plan_comparison"),
            Node(choose_rows, ["scored_rows", COMPARISON], ROWS, name="choose_rows"),
            Node(score_pairs, [ROWS, *REFERENCE], "comparison_pairs", name="score_pairs"),
            Node(
                sample_for_all,
                [
                    *(ROWS, "reference", POLICY, "params:rpo", TRAINING, "params:labeling"),
                    *(COMPARISON, "reference_cache"),
                ],
                "comparison_draws",
                name="sample_for_all",
            ),
            Node(
                label_samples,
                ["comparison_draws", "scored_rows", "normaliser", "params:labeling", "label_cache"],
                "comparison_samples",
                name="label_all_samples",
            ),
            Node(
                gather_rows,
                [ROWS, "comparison_pairs", "comparison_samples", *REFERENCE],
                "comparison_rows",
                name="gather_rows",
            ),
            Node(
                compare_methods,
                [
                    *("comparison_rows", "comparison_samples", "reference", "comparison_plan"),
                    *(COMPARISON, "comparison_workspace", "reference_cache", "label_cache"),
                ],
                "comparison",
                name="compare_methods",
            ),
            Node(render_comparison, "comparison", "comparison_page", name="render_comparison"),
        ]
    )
