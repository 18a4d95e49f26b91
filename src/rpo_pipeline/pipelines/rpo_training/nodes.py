"""Nodes of RPO training."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    ObjectiveParams,
    PolicyParams,
    TrainingParams,
)


def join_training_rows(
    scored_rows: pd.DataFrame, targets: pd.DataFrame, mismatched_logps: pd.DataFrame
) -> pd.DataFrame:
    """Add target and reference log-probability to every labelled row."""
    from rpo_pipeline.training import training_rows

    return training_rows(scored_rows, targets, mismatched_logps)


def settle_objective(objectives: ObjectiveParams, training: TrainingParams) -> dict[str, Any]:
    """Gather the settings that the chosen objective reads, so that no other one counts."""
    own = ObjectiveParams(**objectives.read_by(training.objective))
    return own.model_dump(mode="json", exclude_unset=True)


def train_policy(
    rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    objective: dict[str, Any],
    training: TrainingParams,
    workspace: Path,
    cache: Path,
) -> tuple[Path, pd.DataFrame, dict[str, Any]]:
    """Train the policy and keep the best model."""
    from rpo_pipeline.training import read_metrics, train_policy

    summary = train_policy(
        rows,
        reference,
        policy=policy,
        objectives=ObjectiveParams.model_validate(objective),
        training=training,
        workspace=workspace,
        cache=cache,
    )
    return workspace / "best", read_metrics(workspace), summary.to_dict()
