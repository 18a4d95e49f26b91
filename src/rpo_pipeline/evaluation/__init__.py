"""What models write and score on held-out prompts, and the numbers made of it."""

from rpo_pipeline.evaluation.comparison import compare_models
from rpo_pipeline.evaluation.credibility import measure_labelers
from rpo_pipeline.evaluation.generation import generate
from rpo_pipeline.evaluation.harness import add_tasks
from rpo_pipeline.evaluation.metrics import distinct, prompt_means, rank_correlations
from rpo_pipeline.evaluation.rows import (
    held_out_prompts,
    hold_out,
    log_ratios,
    prompts_of,
)
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
    measure_tasks,
    name_models,
    score_rows,
)
