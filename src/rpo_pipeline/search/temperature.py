"""Chooses tau by a short training with each value of a grid, evaluated on validation prompts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.engine import Engine, row_seed
from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling import label_responses, require_labels
from rpo_pipeline.params import (
    EvaluationParams,
    ObjectiveParams,
    PolicyParams,
    RpoParams,
    TrainingParams,
)
from rpo_pipeline.partition import partition_rows
from rpo_pipeline.training import train_policy, training_rows

Array = np.ndarray[Any, np.dtype[np.float64]]

logger = logging.getLogger(__name__)


def choose_tau(
    rows_at: Callable[[float], pd.DataFrame],
    reference: Path,
    policy: PolicyParams,
    rpo: RpoParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    workspace: Path,
) -> dict[str, Any]:
    """Train briefly with each tau of the grid, and choose the largest that is close to the best.

    Each tau is evaluated by the mean raw reward of responses to the validation prompts, sampled
    with the same noise; losses with different targets cannot be compared. The largest tau within
    one standard error of the paired difference to the best is chosen, as it stays nearest to the
    reference.

    Args:
        rows_at: Function from a tau to the training rows with its targets.
        reference: Directory of the model that training starts from.
        policy: Limits on tokens, precision and adapters.
        rpo: Settings of RPO, with the grid and the length of each training.
        training: Settings of the loop.
        evaluation: Labelers of new text, sampling, and the largest number of prompts.
        workspace: Folder that gets a folder for each candidate, and one for cached labels.

    Returns:
        ``tau`` and ``candidates`` of ``choose``.

    Raises:
        DataError: If there is no validation prompt.
    """
    rewards = {}
    for tau in sorted(rpo.tau_grid):
        rows = rows_at(tau)
        folder = workspace / f"tau-{tau:g}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"num_epochs": rpo.tau_search_epochs, "patience": None}
        train_policy(
            rows,
            reference,
            policy=policy,
            objectives=ObjectiveParams(rpo=rpo),
            training=training.model_copy(update=settings),
            workspace=folder,
        )
        prompts = _validation_prompts(rows, evaluation.num_prompts)
        engine = Engine(folder / "best", policy, training)
        responses = _responses(engine, prompts, evaluation, training.seed)
        rewards[tau] = _rewards(responses, evaluation, workspace / "labels")
        logger.info("tau %g: reward %.3f on validation", tau, rewards[tau].mean())
    return choose(rewards)


def rows_at_tau(
    rows: pd.DataFrame, samples: pd.DataFrame, rpo: RpoParams, tau: float
) -> pd.DataFrame:
    """Return the training rows of labelled rows, with the targets of a tau."""
    return training_rows(rows, partition_rows(rows, samples, rpo, tau=tau)[1])


def choose(rewards: dict[float, Array]) -> dict[str, Any]:
    """Choose the largest tau that is within one standard error of the best.

    Args:
        rewards: Mean raw reward of each validation prompt, in the same order, by tau.

    Returns:
        ``tau``, and ``candidates``: tau, reward_mean, and difference to the best with its standard
        error, each as a number.
    """
    best = max(rewards.values(), key=lambda values: float(values.mean()))
    candidates = []
    for tau, values in sorted(rewards.items()):
        difference = values - best
        candidates.append(
            {
                "tau": tau,
                "reward_mean": float(values.mean()),
                "difference": float(difference.mean()),
                "difference_se": float(difference.std(ddof=1) / np.sqrt(len(values))),
            }
        )
    good = [c["tau"] for c in candidates if c["difference"] >= -c["difference_se"]]
    logger.info("rpo.tau: %g, of %s", max(good), ", ".join(f"{tau:g}" for tau in sorted(rewards)))
    return {"tau": max(good), "candidates": candidates}


def _validation_prompts(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    validation = rows.loc[rows["split"] == "validation", ["prompt_id", "prompt"]]
    prompts = validation.drop_duplicates("prompt_id").sort_values("prompt_id").head(limit)
    if len(prompts) < 2:
        raise DataError(
            f"rpo.tau: auto is chosen on validation prompts, and there are {len(prompts)} with a "
            "labelled row (ingestion.split_shares.validation, or give rpo.tau a number)"
        )
    return prompts


def _responses(
    engine: Engine, prompts: pd.DataFrame, evaluation: EvaluationParams, seed: int
) -> pd.DataFrame:
    """Sample a model's responses to each prompt: prompt_id, prompt, response, token_ids."""
    sampling = evaluation.sampling
    table = prompts.loc[prompts.index.repeat(sampling.responses_per_prompt)].reset_index(drop=True)
    number = table.groupby("prompt_id").cumcount()
    seeds = [row_seed(seed, *key) for key in zip(table["prompt_id"], number, strict=True)]
    temperature = sampling.sampling_temperature
    return table.join(engine.sample(table, seeds, sampling_temperature=temperature))


def _rewards(table: pd.DataFrame, evaluation: EvaluationParams, label_cache: Path) -> Array:
    """Compute the mean raw reward of each prompt."""
    labels = label_responses(
        table["prompt"].tolist(), table["response"].tolist(), evaluation.labelers, label_cache
    )
    raw_rewards = require_labels(labels)["raw_reward"]
    return raw_rewards.groupby(table["prompt_id"]).mean().to_numpy(np.float64)
