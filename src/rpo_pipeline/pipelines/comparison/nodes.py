"""Nodes of the comparison."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    ComparisonParams,
    EvaluationParams,
    LabelingParams,
    ObjectiveParams,
    PolicyParams,
    RpoParams,
    TrainingParams,
)


def plan_comparison(
    labeling: LabelingParams,
    policy: PolicyParams,
    objectives: ObjectiveParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
) -> dict[str, Any]:
    """Gather the parameters that every training of a comparison reads."""
    from rpo_pipeline.search import Plan, Settings
    from rpo_pipeline.storage import named_content

    blocks = {"labeling": labeling, "policy": policy, "training": training, **dict(objectives)}
    settings = Settings(evaluation=evaluation, **blocks)
    return Plan(settings=settings, folders=named_content(settings)).model_dump(mode="json")


def choose_rows(scored_rows: pd.DataFrame, comparison: ComparisonParams) -> pd.DataFrame:
    """Choose the rows of the log that the comparison reads."""
    from rpo_pipeline.search import choose_rows

    return choose_rows(scored_rows, comparison)


def score_pairs(
    scored_rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    comparison: ComparisonParams,
    cache: Path,
) -> pd.DataFrame:
    """Score the mismatched pairs of KTO, if it is compared."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.partition import labelled_rows, score_mismatched
    from rpo_pipeline.search import trains

    engine = Engine(reference, policy, training, cache)
    is_needed = trains(comparison, "kto")
    rows = labelled_rows(scored_rows)
    return score_mismatched(rows, engine, seed=training.seed, is_needed=is_needed)


def sample_for_all(
    scored_rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    training: TrainingParams,
    labeling: LabelingParams,
    comparison: ComparisonParams,
    cache: Path,
) -> pd.DataFrame:
    """Sample the reference for the prompts of a training, if a compared method needs samples."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.partition import labelled_rows, prompts_to_sample, sample_reference
    from rpo_pipeline.search import samples_reference

    engine = Engine(reference, policy, training, cache)
    every = "quantile" if samples_reference(comparison, rpo, labeling) else "monte_carlo"
    settings = rpo.model_copy(update={"estimator": every})
    rows = labelled_rows(scored_rows)
    prompts = prompts_to_sample(rows[rows["split"] != "test"], settings)
    return sample_reference(prompts, engine, rpo.reference_samples.num_samples)


def gather_rows(
    scored_rows: pd.DataFrame,
    pairs: pd.DataFrame,
    samples: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    comparison: ComparisonParams,
    cache: Path,
) -> pd.DataFrame:
    """Gather the logged rows and, if a study needs them, samples as if they had been logged."""
    from rpo_pipeline.engine import Engine
    from rpo_pipeline.search import gather_rows, score_sampled_rows

    engine = Engine(reference, policy, training, cache)
    sampled = score_sampled_rows(samples, scored_rows, engine, comparison, training.seed)
    return gather_rows(scored_rows, pairs, sampled)


def compare_methods(
    rows: pd.DataFrame,
    samples: pd.DataFrame,
    reference: Path,
    plan: dict[str, Any],
    comparison: ComparisonParams,
    workspace: Path,
    cache: Path,
    label_cache: Path,
) -> dict[str, Any]:
    """Train and measure every cell that is not finished, and summarise their numbers."""
    from rpo_pipeline.search import Material, Plan, run_comparison

    tables = {
        "rows": rows[rows["is_logged"]].drop(columns="is_logged"),
        "sampled_rows": rows[~rows["is_logged"]].drop(columns="is_logged"),
        "samples": samples,
    }
    material = Material(**tables, reference=reference, model_cache=cache, label_cache=label_cache)
    return run_comparison(material, Plan.model_validate(plan).settings, comparison, workspace)


def render_comparison(comparison: dict[str, Any]) -> str:
    """Write the table and its pictures as a page."""
    from rpo_pipeline.reporting import render_comparison

    return render_comparison(comparison)
