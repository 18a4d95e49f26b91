"""Nodes of promotion."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    PolicyParams,
    PromotionParams,
)
from rpo_pipeline.records import (
    Candidate,
    Registration,
    RunAddress,
    Summary,
    from_json,
    to_json,
)


def trace_provenance(
    feedback: pd.DataFrame,
    reference: Path,
    normaliser: dict[str, Any],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Gather what the policy was made from, as documents of its version."""
    from rpo_pipeline.registry import resolved_parameters, trace

    policy = PolicyParams.model_validate(parameters["policy"])
    return {
        "normaliser.json": normaliser,
        "provenance.json": trace(feedback, reference, policy),
        "parameters.json": resolved_parameters(parameters),
    }


def write_model_card(
    summary: Summary,
    row_account: dict[str, int],
    data_statistics: dict[str, Any],
    training_summary: dict[str, Any],
    partition_health: dict[str, Any],
    documents: dict[str, Any],
) -> str:
    """Write the model card of the policy's version."""
    from rpo_pipeline.reporting import render_model_card

    return render_model_card(
        summary=summary,
        row_account=row_account,
        statistics=data_statistics,
        training_summary=training_summary,
        partition_health=partition_health,
        provenance=documents["provenance.json"],
        parameters=documents["parameters.json"],
    )


def register_version(
    policy: Path,
    summary: Summary,
    documents: dict[str, Any],
    report: str,
    model_card: str,
    previous: Registration | None,
    promotion: PromotionParams,
    mlflow_run: RunAddress,
) -> Registration:
    """Register the policy as the challenger, unless it is a version already or another is named."""
    from rpo_pipeline.registry import has_version, register_version, serving_documents
    from rpo_pipeline.storage import model_fingerprint

    name, previous = promotion.model_name, previous or Registration()
    known = previous.policy == model_fingerprint(policy)
    if promotion.version or (known and has_version(mlflow_run, name, previous)):
        return previous
    # The serving code is read last, so that the version gets its current state.
    served = serving_documents(documents["parameters.json"]["policy"])
    pages = {"report.html": report, "model_card.md": model_card}
    summed = {"summary.json": to_json(summary)}
    everything = {**summed, **documents, **pages, **served}
    tags = documents["provenance.json"]
    return register_version(mlflow_run, name, policy, everything, summary.headline, tags)


def name_candidate(
    registered_version: Registration,
    summary: Summary,
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: RunAddress,
) -> Candidate:
    """Name the version to promote, with its summary if that is about today's champion."""
    from rpo_pipeline.registry import fetch_champion, fetch_checkpoint, fetch_document

    if promotion.version is None:
        return Candidate(version=registered_version.version, summary=summary)
    run, name, version = mlflow_run, promotion.model_name, str(promotion.version)
    stored = from_json(Summary, fetch_document(run, name, version, "summary.json"))
    champion = fetch_champion(run, name, workspace)
    is_about_it = champion.version == stored.champion_version and stored.is_complete
    if is_about_it or champion.version == version:
        return Candidate(version=version, summary=stored)
    path = fetch_checkpoint(run, name, version, workspace)
    return Candidate(version=version, path=path, champion=champion)


def measure_candidate(
    candidate: Candidate,
    feedback: pd.DataFrame,
    heldout_rows: pd.DataFrame,
    reference: Path,
    parameters: dict[str, Any],
    cache: Path,
    label_cache: Path,
    mlflow_run: RunAddress,
) -> Summary:
    """Evaluate a candidate again if its summary compares with another champion, and gate it."""
    from rpo_pipeline.evaluation import EvaluationSettings, evaluate, name_models
    from rpo_pipeline.registry import decide, summarise

    promotion = PromotionParams.model_validate(parameters["promotion"])
    if candidate.summary:
        return replace(candidate.summary, gate=decide(candidate.summary, promotion))
    assert candidate.path
    assert candidate.champion
    models = name_models(reference, candidate.path, candidate.champion)
    blocks = {name: parameters[name] for name in EvaluationSettings.model_fields}
    settings = EvaluationSettings.model_validate(blocks)
    caches = {"cache": cache, "label_cache": label_cache}
    measured, agreement = evaluate(models, feedback, heldout_rows, settings, **caches)
    return summarise(mlflow_run, measured, agreement, candidate.champion.version, promotion)


def promote(
    candidate: Candidate,
    candidate_summary: Summary,
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: RunAddress,
) -> dict[str, Any]:
    """Make the candidate champion if the gate passed."""
    from rpo_pipeline.registry import apply_decision

    gate = candidate_summary.gate
    return apply_decision(mlflow_run, candidate.version, gate, promotion, workspace)


def note_consumed(
    source_parts: list[dict[str, Any]],
    promotion_result: dict[str, Any],
    previous: dict[str, Any] | None,
    promotion: PromotionParams,
) -> dict[str, Any]:
    """Record the files that a run has read, in the last node, so that a failed run records none."""
    if promotion.version:  # it came from an earlier run
        return previous or {"version": None, "parts": []}
    return {"version": promotion_result["version"], "parts": source_parts}
