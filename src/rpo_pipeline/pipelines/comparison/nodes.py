"""Nodes of the comparison."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    ComparisonParams,
    DroParams,
    EvaluationParams,
    KtoParams,
    LabelingParams,
    PolicyParams,
    QrpoParams,
    RpoParams,
    SftParams,
    TrainingParams,
)
from rpo_pipeline.pipelines.partition_estimation.nodes import (
    sample_reference,
    score_mismatched,
    score_reference,
)


def score_pairs(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    comparison: ComparisonParams,
    cache: Path,
) -> pd.DataFrame:
    """Score the mismatched pairs of KTO, if it is compared."""
    compared = any(method.objective == "kto" for method in comparison.methods)
    training = training.model_copy(update={"objective": "kto" if compared else "sft"})
    return score_mismatched(feedback, rewards, reference, policy, training, cache)


def sample_for_all(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    normaliser: dict[str, Any],
    reference: Path,
    policy: PolicyParams,
    labeling: LabelingParams,
    rpo: RpoParams,
    qrpo: QrpoParams,
    training: TrainingParams,
    comparison: ComparisonParams,
    cache: Path,
    label_cache: Path,
) -> pd.DataFrame:
    """Sample the reference for every prompt, if a method that is compared wants samples."""
    wanted = comparison.mixes_samples or any(
        method.objective == "qrpo" or method.settings.get("rpo.estimator") == "reference_samples"
        for method in comparison.methods
    )
    training = training.model_copy(update={"objective": "qrpo" if wanted else "sft"})
    rpo = rpo.model_copy(update={"estimator": "monte_carlo"})
    return sample_reference(
        feedback,
        rewards,
        normaliser,
        reference,
        policy,
        labeling,
        rpo,
        qrpo,
        training,
        cache,
        label_cache,
    )


def score_samples(
    feedback: pd.DataFrame,
    samples: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    comparison: ComparisonParams,
    cache: Path,
) -> pd.DataFrame:
    """Score the reference's samples as if they had been logged, if a study mixes them in."""
    from rpo_pipeline.search import sampled_rows

    if not comparison.mixes_samples:
        return pd.DataFrame(columns=["row_id", "prompt_id"])
    rows = sampled_rows(samples, feedback)
    scores = score_reference(rows, reference, policy, training, cache)
    pairs = score_pairs(rows, rows, reference, policy, training, comparison, cache)
    pairs = pairs.set_index("row_id").add_prefix("mismatched_")
    return rows.merge(scores, on="row_id").join(pairs, on="row_id").drop(columns="token_ids")


def compare_methods(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    pairs: pd.DataFrame,
    samples: pd.DataFrame,
    sampled_rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    sft: SftParams,
    kto: KtoParams,
    dro: DroParams,
    qrpo: QrpoParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    comparison: ComparisonParams,
    workspace: Path,
    cache: Path,
    label_cache: Path,
) -> dict[str, Any]:
    """Train and measure every cell that is not finished, and put their numbers together."""
    from rpo_pipeline.search import Material, Settings, run_comparison

    settings = Settings(
        policy=policy,
        rpo=rpo,
        sft=sft,
        kto=kto,
        dro=dro,
        qrpo=qrpo,
        training=training,
        evaluation=evaluation,
    )
    material = Material(
        feedback,
        rewards,
        reference_logps,
        pairs,
        samples,
        sampled_rows,
        reference,
        cache,
        label_cache,
    )
    return run_comparison(material, settings, comparison, workspace)


def render_comparison(comparison: dict[str, Any]) -> str:
    """Write the table and its pictures as a page."""
    from rpo_pipeline.reporting import render_comparison

    return render_comparison(comparison)
