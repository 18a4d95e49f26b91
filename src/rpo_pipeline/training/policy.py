"""Training the policy: from the reference, on targets and cached reference log-probabilities."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.data.tokenisation import tokenise_groups
from rpo_pipeline.models.loading import load_checkpoint
from rpo_pipeline.params import PolicyParams, RpoParams, SftParams, TrainingParams
from rpo_pipeline.training.loop import TrainingSummary, train
from rpo_pipeline.training.objectives import Objective, RpoObjective, SftObjective


def training_rows(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    targets: pd.DataFrame,
) -> pd.DataFrame:
    """Join what training needs, one line per labelled row.

    Args:
        feedback: The feedback table.
        rewards: Of the labelled rows.
        reference_logps: Cached log-probabilities of the reference.
        targets: ``reward / tau - log_z`` of each row, in nats.

    Returns:
        row_id, prompt_id, split, prompt, response, reward, ref_logps (summed, nats) and
        target (nats).
    """
    rows = (
        feedback[["row_id", "prompt_id", "split", "prompt", "response"]]
        .merge(rewards[["row_id", "reward"]], on="row_id")
        .merge(reference_logps[["row_id", "logps"]], on="row_id")
        .merge(targets[["row_id", "target"]], on="row_id")
    )
    return rows.rename(columns={"logps": "ref_logps"})


def train_policy(
    rows: pd.DataFrame,
    reference: Path,
    *,
    policy: PolicyParams,
    rpo: RpoParams,
    sft: SftParams,
    training: TrainingParams,
    workspace: Path,
) -> TrainingSummary:
    """Train from the reference by ``training.objective``; the frozen one is never loaded beside it.

    Args:
        rows: As ``training_rows`` gives them.
        reference: Directory of the model that training starts from.
        policy: Limits on tokens and precision.
        rpo: How log-probabilities are reduced.
        sft: Which responses supervised fine-tuning learns from.
        training: The loop's settings.
        workspace: Gets ``best/`` and ``metrics.jsonl``.

    Returns:
        How it went.

    Raises:
        TrainingError: If a loss or a gradient is not finite.
    """
    language_model = load_checkpoint(reference, policy)
    text_format = language_model.text_format(
        max_prompt_tokens=policy.max_prompt_tokens, max_response_tokens=policy.max_response_tokens
    )
    rows = rows[rows["split"].isin(["train", "validation"])]
    if training.objective == "sft" and sft.responses == "top":
        rows = rows.loc[rows.groupby("prompt_id")["reward"].idxmax()]
    rows = rows.reset_index(drop=True)
    groups = tokenise_groups(rows, text_format)
    in_train = (rows["split"] == "train").to_numpy()
    return train(
        language_model,
        [group for group in groups if in_train[group.rows[0]]],
        [group for group in groups if not in_train[group.rows[0]]],
        _objective(rows, rpo, training),
        training,
        workspace,
    )


def _objective(rows: pd.DataFrame, rpo: RpoParams, training: TrainingParams) -> Objective:
    if training.objective == "sft":
        return SftObjective()
    return RpoObjective(
        ref_logps=_tensor(rows["ref_logps"]),
        targets=_tensor(rows["target"]),
        per_token=rpo.logp_reduction == "mean",
    )


def read_metrics(workspace: Path) -> pd.DataFrame:
    """The training's ``metrics.jsonl`` as a table, one line per step."""
    return pd.read_json(workspace / "metrics.jsonl", lines=True)


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float32, copy=True))
