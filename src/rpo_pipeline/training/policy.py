"""Training the policy: from the reference, on targets and cached reference log-probabilities."""

from pathlib import Path

import pandas as pd

from rpo_pipeline.params import PolicyParams, RpoParams, SftParams, TrainingParams
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import launch
from rpo_pipeline.training.loop import TrainingSummary


def training_rows(
    feedback: pd.DataFrame,
    rewards: pd.DataFrame,
    reference_logps: pd.DataFrame,
    partition: pd.DataFrame,
    rpo: RpoParams,
) -> pd.DataFrame:
    """Join what training needs, one line per labelled row.

    Args:
        feedback: The feedback table.
        rewards: Of the labelled rows.
        reference_logps: Cached log-probabilities of the reference.
        partition: log_z of each prompt.
        rpo: Temperature.

    Returns:
        row_id, prompt_id, split, prompt, response, reward, ref_logps (summed, nats) and
        target = reward / tau - log_z (nats).
    """
    rows = (
        feedback[["row_id", "prompt_id", "split", "prompt", "response"]]
        .merge(rewards[["row_id", "reward"]], on="row_id")
        .merge(reference_logps[["row_id", "logps"]], on="row_id")
        .merge(partition[["prompt_id", "log_z"]], on="prompt_id")
    )
    rows["target"] = rows["reward"] / rpo.tau - rows["log_z"]
    return rows.rename(columns={"logps": "ref_logps"}).drop(columns="log_z")


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
    job = TrainingJob(
        start=reference, workspace=workspace, policy=policy, rpo=rpo, sft=sft, training=training
    )
    return launch(job.write(rows))


def read_metrics(workspace: Path) -> pd.DataFrame:
    """The training's ``metrics.jsonl`` as a table, one line per step."""
    return pd.read_json(workspace / "metrics.jsonl", lines=True)
