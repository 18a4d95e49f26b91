"""What models write and score on held-out prompts, and the numbers made of it."""

from rpo_pipeline.evaluation.comparison import compare_models
from rpo_pipeline.evaluation.credibility import measure_labelers
from rpo_pipeline.evaluation.generation import generate, held_out_prompts
from rpo_pipeline.evaluation.harness import add_tasks, run_tasks
from rpo_pipeline.evaluation.heldout import score_heldout
from rpo_pipeline.evaluation.metrics import distinct, prompt_means, rank_correlations
from rpo_pipeline.evaluation.rows import hold_out, prompts_of
from rpo_pipeline.evaluation.statistics import (
    Array,
    Interval,
    detectable_difference,
    holm,
    percentile_interval,
    resample_prompts,
)
from rpo_pipeline.evaluation.steps import (
    EvaluationSettings,
    evaluate,
    judge_generations,
    label_generations,
    name_models,
    score_rows,
)

__all__ = [
    "Array",
    "EvaluationSettings",
    "Interval",
    "add_tasks",
    "compare_models",
    "detectable_difference",
    "distinct",
    "evaluate",
    "generate",
    "held_out_prompts",
    "hold_out",
    "holm",
    "judge_generations",
    "label_generations",
    "measure_labelers",
    "name_models",
    "percentile_interval",
    "prompt_means",
    "prompts_of",
    "rank_correlations",
    "resample_prompts",
    "run_tasks",
    "score_heldout",
    "score_rows",
]
