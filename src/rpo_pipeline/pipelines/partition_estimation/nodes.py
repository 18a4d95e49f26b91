"""Nodes of partition estimation."""

from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.params import PolicyParams, RpoParams, TrainingParams


def prepare_reference(
    existing: Path | None,
    feedback: pd.DataFrame,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
) -> Path:
    """Load or build the reference, once."""
    from rpo_pipeline.training import reference

    return reference.prepare_reference(existing, feedback, policy, training, workspace)


def score_reference(
    feedback: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
) -> pd.DataFrame:
    """Compute the reference's log-probability of every response, once."""
    from rpo_pipeline.models.loading import load_checkpoint
    from rpo_pipeline.models.logps_cache import cache_key, score_new_rows

    return score_new_rows(
        load_checkpoint(reference, policy),
        feedback,
        policy,
        workspace / cache_key(reference, policy),
        micro_batch_tokens=training.micro_batch_tokens,
    )


def score_mismatched(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference: Path,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
) -> pd.DataFrame:
    """Compute the reference's log-probability of responses to another prompt, which KTO needs."""
    from rpo_pipeline.data.mismatched import mismatched_pairs
    from rpo_pipeline.data.rows import row_key

    if training.objective != "kto":
        return pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    learned = feedback["split"].isin(["train", "validation"])
    labelled = feedback["row_id"].isin(rewards["row_id"])
    pairs = mismatched_pairs(feedback[learned & labelled], training.seed)
    keyed = pairs.assign(row_id=list(map(row_key, pairs["prompt"], pairs["response"])))
    scores = score_reference(keyed, reference, policy, training, workspace)
    return pairs[["row_id", "prompt_id"]].assign(logps=scores["logps"].to_numpy())


def estimate_partition(
    feedback: pd.DataFrame, rewards: pd.DataFrame, reference_logps: pd.DataFrame, rpo: RpoParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Estimate log_z of every prompt that has a labelled row."""
    from rpo_pipeline.rewards.partition import partition_rows

    rows = feedback[["row_id", "prompt_id", "split"]].merge(rewards, on="row_id")
    return partition_rows(rows.merge(reference_logps, on="row_id"), rpo)
