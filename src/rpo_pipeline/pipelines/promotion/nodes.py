"""Nodes of promotion."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    DroParams,
    EvaluationParams,
    LabelingParams,
    PolicyParams,
    PromotionParams,
    RpoParams,
    TrainingParams,
)


def trace_provenance(
    feedback: pd.DataFrame, reference: Path, policy: PolicyParams
) -> dict[str, Any]:
    """Write down what the policy was made from."""
    from rpo_pipeline.registry import trace

    return trace(feedback, reference, policy)


def write_model_card(
    summary: dict[str, Any],
    row_account: dict[str, int],
    data_statistics: dict[str, Any],
    training_summary: dict[str, Any],
    chosen_tau: dict[str, Any],
    provenance: dict[str, Any],
    parameters: dict[str, Any],
) -> str:
    """Describe the policy for whoever meets it in the registry."""
    from rpo_pipeline.registry import resolved_parameters
    from rpo_pipeline.reporting import render_model_card

    return render_model_card(
        summary=summary,
        row_account=row_account,
        statistics=data_statistics,
        training_summary=training_summary,
        chosen_tau=chosen_tau,
        provenance=provenance,
        parameters=resolved_parameters(parameters),
    )


def register_version(
    policy: Path,
    summary: dict[str, Any],
    normaliser: dict[str, Any],
    provenance: dict[str, Any],
    report: str,
    model_card: str,
    parameters: dict[str, Any],
    previous: dict[str, str] | None,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, str]:
    """Register the policy as the challenger, unless it is a version already or another is named."""
    from rpo_pipeline.registry import (
        has_version,
        register_version,
        resolved_parameters,
        serving_documents,
    )
    from rpo_pipeline.storage import model_fingerprint

    previous, fingerprint = previous or {}, model_fingerprint(policy)
    known = previous.get("policy") == fingerprint
    if promotion.version or (known and has_version(mlflow_run, promotion.model_name, previous)):
        return previous
    metrics = {f"eval/{k}": m["value"] for k, m in summary["challenger"].items()}
    resolved = resolved_parameters(parameters)
    version = register_version(
        mlflow_run,
        promotion.model_name,
        policy,
        documents={
            "summary.json": summary,
            "normaliser.json": normaliser,
            "provenance.json": provenance,
            "parameters.json": resolved,
            "report.html": report,
            "model_card.md": model_card,
            **serving_documents(resolved["policy"]),
        },
        metrics={name: value for name, value in metrics.items() if value is not None},
        tags={name: str(value) for name, value in provenance.items() if value is not None},
    )
    return {**version, "policy": fingerprint}


def name_candidate(
    registered_version: dict[str, str],
    summary: dict[str, Any],
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Name the version to promote, with its summary if that is about today's champion."""
    from rpo_pipeline.registry import (
        fetch_champion,
        fetch_checkpoint,
        fetch_document,
        is_complete,
    )

    if promotion.version is None:
        return {"version": registered_version["version"], "summary": summary}
    run, name, version = mlflow_run, promotion.model_name, str(promotion.version)
    stored = fetch_document(run, name, version, "summary.json")
    champion = fetch_champion(run, name, workspace)
    is_about_it = champion["version"] == stored["champion_version"] and is_complete(stored)
    if is_about_it or champion["version"] == version:
        return {"version": version, "summary": stored}
    path = str(fetch_checkpoint(run, name, version, workspace))
    return {"version": version, "summary": None, "path": path, "champion": champion}


def measure_candidate(
    candidate: dict[str, Any],
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference: Path,
    reference_logps: pd.DataFrame,
    chosen_tau: dict[str, Any],
    policy: PolicyParams,
    labeling: LabelingParams,
    rpo: RpoParams,
    dro: DroParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    promotion: PromotionParams,
    cache: Path,
    label_cache: Path,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Evaluate a candidate again if its summary is about another champion, and gate it."""
    from rpo_pipeline.pipelines.evaluation import nodes
    from rpo_pipeline.registry import decide

    if candidate["summary"]:
        return {**candidate["summary"], "gate": decide(candidate["summary"], promotion)}
    path, champion = Path(candidate["path"]), candidate["champion"]
    generations = nodes.generate_responses(
        feedback, reference, path, champion, policy, evaluation, training, cache
    )
    labelled = nodes.label_generations(
        generations, feedback, rewards, labeling, evaluation, label_cache
    )
    verdicts = nodes.judge_generations(generations, feedback, evaluation, label_cache)
    scored = (feedback, rewards, reference_logps, path, chosen_tau)
    heldout = nodes.score_heldout(*scored, policy, rpo, dro, training, evaluation)
    agreement = nodes.measure_labelers(feedback, [], labeling, evaluation, label_cache)
    metrics = nodes.compare_models(labelled, heldout, verdicts, agreement, evaluation, training)
    tasks = nodes.run_tasks(reference, path, champion, policy, evaluation, training)
    return nodes.summarise(metrics, tasks, agreement, champion, promotion, mlflow_run)


def promote(
    candidate: dict[str, Any],
    candidate_summary: dict[str, Any],
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Make the candidate champion if the gate passed."""
    from rpo_pipeline.registry import LOCK, apply_decision

    return apply_decision(
        mlflow_run,
        candidate["version"],
        candidate_summary["gate"],
        promotion,
        lock_file=workspace / LOCK,
    )


def note_consumed(
    source_parts: list[dict[str, Any]],
    promotion_result: dict[str, Any],
    previous: dict[str, Any] | None,
    promotion: PromotionParams,
) -> dict[str, Any]:
    """Note which files a run has used up; the last node, so that a failed run uses up nothing."""
    if promotion.version:  # it came from an earlier run
        return previous or {"version": None, "parts": []}
    return {"version": promotion_result["version"], "parts": source_parts}
