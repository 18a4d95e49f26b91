"""Nodes of RPO training."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import (
    DroParams,
    KtoParams,
    ObjectiveParams,
    PolicyParams,
    RpoParams,
    SftParams,
    TrainingParams,
)


def join_training_rows(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    targets: pd.DataFrame,
    mismatched_logps: pd.DataFrame,
) -> pd.DataFrame:
    """Put target and reference log-probability beside every labelled row."""
    from rpo_pipeline.training import training_rows

    return training_rows(feedback, rewards, reference_logps, targets, mismatched_logps)


def train_policy(
    rows: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    sft: SftParams,
    kto: KtoParams,
    dro: DroParams,
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
        objectives=ObjectiveParams(rpo=rpo, sft=sft, kto=kto, dro=dro),
        training=training,
        workspace=workspace,
        cache=cache,
    )
    return workspace / "best", read_metrics(workspace), summary.to_dict()
