"""Nodes of promotion."""

from pathlib import Path
from typing import Any

from rpo_pipeline.params import PromotionParams


def register_version(
    policy: Path,
    summary: dict[str, Any],
    normaliser: dict[str, Any],
    previous: dict[str, str] | None,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, str]:
    """Log the policy and register it as the challenger, unless it is a version already."""
    from rpo_pipeline.models.loading import model_fingerprint
    from rpo_pipeline.registry import client

    fingerprint = model_fingerprint(policy)
    if (
        previous
        and previous["policy"] == fingerprint
        and client.has_version(mlflow_run, promotion.model_name, previous)
    ):
        return previous
    metrics = {f"eval/{k}": m["value"] for k, m in summary["challenger"].items()}
    version = client.register_version(
        mlflow_run,
        promotion.model_name,
        policy,
        documents={"summary": summary, "normaliser": normaliser},
        metrics={name: value for name, value in metrics.items() if value is not None},
    )
    return {**version, "policy": fingerprint}


def promote(
    registered_version: dict[str, str],
    summary: dict[str, Any],
    workspace: Path,
    promotion: PromotionParams,
    mlflow_run: dict[str, str],
) -> dict[str, Any]:
    """Make the challenger champion if the gate passed."""
    from rpo_pipeline.registry import client

    return client.apply_decision(
        mlflow_run,
        registered_version["version"],
        summary["gate"],
        promotion,
        lock_file=workspace / "promotion.lock",
    )


def note_consumed(
    source_parts: list[dict[str, Any]], promotion_result: dict[str, Any]
) -> dict[str, Any]:
    """Note which files a run has used up; the last node, so that a failed run uses up nothing."""
    return {"version": promotion_result["version"], "parts": source_parts}
