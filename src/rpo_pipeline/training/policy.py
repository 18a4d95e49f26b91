"""Trains the policy from the reference, on targets and cached reference log-probabilities."""

from pathlib import Path

import pandas as pd

from rpo_pipeline.params import ObjectiveParams, PolicyParams, TrainingParams
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import launch
from rpo_pipeline.training.loop import TrainingSummary


def training_rows(
    rows: pd.DataFrame, targets: pd.DataFrame, mismatched_logps: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Join what training needs, one line per labelled row.

    Args:
        rows: Labelled rows with their rewards and the reference's logps.
        targets: By row_id ``reward / tau - log_z`` and huber_delta, in nats, and rho.
        mismatched_logps: Log-probabilities of KTO's pairs; none, or empty, for other objectives.

    Returns:
        row_id, prompt_id, split, prompt, response, reward, ref_logps (summed, nats), target
        (nats), rho, huber_delta, mismatched_prompt_id and mismatched_ref_logps (null without).
    """
    if mismatched_logps is None:
        mismatched_logps = pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    pairs = mismatched_logps.set_index("row_id").add_prefix("mismatched_")
    columns = ["row_id", "prompt_id", "split", "prompt", "response", "reward", "logps"]
    joined = rows[columns].merge(targets, on="row_id")
    names = {"logps": "ref_logps", "mismatched_logps": "mismatched_ref_logps"}
    return joined.join(pairs, on="row_id").rename(columns=names)


def train_policy(
    rows: pd.DataFrame,
    reference: Path,
    *,
    policy: PolicyParams,
    objectives: ObjectiveParams,
    training: TrainingParams,
    workspace: Path,
    cache: Path | None = None,
) -> TrainingSummary:
    """Train from the reference by ``training.objective``, without a second, frozen model.

    Args:
        rows: Table of ``training_rows``.
        reference: Directory of the model that training starts from.
        policy: Limits on tokens and precision.
        objectives: Settings of each objective.
        training: Settings of the loop.
        workspace: Folder that gets ``best/`` and ``metrics.jsonl``.
        cache: Folder of the cached log-probabilities, for messages.

    Returns:
        Outcome of the training.

    Raises:
        RpoError: If the objective cannot work with these rows, or a loss is not finite.
    """
    if training.objective == "sft" and objectives.sft and objectives.sft.responses == "top":
        rows = rows.loc[rows.groupby("prompt_id")["reward"].idxmax()]
    job = TrainingJob(
        start=reference,
        workspace=workspace,
        policy=policy,
        training=training,
        objectives=objectives,
        cache=cache,
    )
    return launch(job.write(rows))


def read_metrics(workspace: Path) -> pd.DataFrame:
    """Read the training's ``metrics.jsonl`` as a table, one line per step."""
    return pd.read_json(workspace / "metrics.jsonl", lines=True)
