"""Partition of a feedback table: log_z of every prompt, and how healthy the estimate is."""

import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.core.partition import (
    Partition,
    Prior,
    calibration,
    estimate_partition,
    fit_prior,
    log_weights,
)
from rpo_pipeline.params import RpoParams

logger = logging.getLogger(__name__)

MISCALIBRATED = 0.5
"""Nats of leave-one-out calibration above which log_z is loudly doubted."""
BEST_OF_N = 2.0
"""sd(r)/tau above which log_z is the best response's reward rather than a partition."""


def partition_rows(rows: pd.DataFrame, rpo: RpoParams) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Estimate log_z of every prompt.

    Args:
        rows: Columns prompt_id, split, reward, logps and num_tokens (of the reference).
        rpo: Estimator and temperature.

    Returns:
        The partition table, one line per prompt, and the health report.
    """
    rows = rows.sort_values(["prompt_id", "row_id"], ignore_index=True)
    codes, prompt_ids = pd.factorize(rows["prompt_id"])
    group = torch.from_numpy(codes.astype(np.int64))
    rewards = _tensor(rows["reward"])
    weights = log_weights(
        rpo.estimator,
        _tensor(rows["logps"]) / _tensor(rows["num_tokens"]),
        self_normalized_alpha=rpo.self_normalized_alpha,
    )
    estimate = estimate_partition(
        rewards,
        weights,
        group,
        len(prompt_ids),
        tau=rpo.tau,
        normalised=rpo.estimator != "reference_weighted",
        prior=_train_prior(rows, rpo),
    )
    table = _table(rows, prompt_ids, group, estimate, rpo.tau)
    health = _health(rows, table, estimate, rpo)
    for warning in health["warnings"]:
        logger.warning(warning)
    return table, health


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float64, copy=True))


def _train_prior(rows: pd.DataFrame, rpo: RpoParams) -> Prior | None:
    if rpo.prior_strength == 0:
        return None
    train = rows[rows["split"] == "train"]
    codes, prompt_ids = pd.factorize(train["prompt_id"])
    return fit_prior(
        _tensor(train["reward"]),
        torch.from_numpy(codes.astype(np.int64)),
        len(prompt_ids),
        tau=rpo.tau,
        strength=rpo.prior_strength,
    )


def _table(
    rows: pd.DataFrame, prompt_ids: pd.Index, group: Tensor, estimate: Partition, tau: float
) -> pd.DataFrame:
    target = rows["reward"].to_numpy() / tau - estimate.log_z.numpy()[group.numpy()]
    by_prompt = pd.Series(target).groupby(group.numpy())
    size = by_prompt.size().to_numpy()
    return pd.DataFrame(
        {
            "prompt_id": prompt_ids,
            "n": size,
            "n_used": size,
            "log_z": estimate.log_z.numpy(),
            "log_z_se": estimate.log_z_se.numpy(),
            "log_z_bias": estimate.log_z_bias.numpy(),
            "ess": estimate.ess.numpy(),
            "ess_weights": estimate.ess_weights.numpy(),
            "target_mean": by_prompt.mean().to_numpy(),
            "target_std": by_prompt.std(ddof=0).to_numpy(),
        }
    )


def _health(
    rows: pd.DataFrame, table: pd.DataFrame, estimate: Partition, rpo: RpoParams
) -> dict[str, Any]:
    by_prompt = rows.groupby("prompt_id")["reward"]
    several = (by_prompt.transform("size") >= 2).to_numpy()
    within = rows["reward"] - by_prompt.transform("mean")
    freedom = several.sum() - rows.loc[several, "prompt_id"].nunique()
    error = calibration(
        _tensor(rows.loc[several, "reward"]),
        estimate.log_z_without[torch.tensor(several)],
        tau=rpo.tau,
    )
    health: dict[str, Any] = {
        "estimator": rpo.estimator,
        "tau": rpo.tau,
        "logp_reduction": rpo.logp_reduction,
        "prior_strength": rpo.prior_strength,
        "num_prompts": len(table),
        "num_rows": len(rows),
        "singleton_share": float((table["n"] == 1).mean()),
        "constant_reward_share": float((by_prompt.nunique() == 1).mean()),
        "reward_std_over_tau": float(np.sqrt((within**2).sum() / max(1, freedom)) / rpo.tau),
        "ess_mean": float(table["ess"].mean()),
        "ess_weights_mean": float(table["ess_weights"].mean()),
        "target_mean": float(np.average(table["target_mean"], weights=table["n"])),
        "calibration": None if math.isnan(error) else error,
    }
    return {**health, "warnings": _warnings(health)}


def _warnings(health: dict[str, Any]) -> list[str]:
    warnings = []
    error, spread = health["calibration"], health["reward_std_over_tau"]
    if error is not None and abs(error) > MISCALIBRATED:
        warnings.append(
            f"log_z is off by {error:.2f} nats on rows that it has not seen (0 is right, the limit "
            f"{MISCALIBRATED}): raise rpo.tau or rpo.prior_strength, or log more responses a prompt"
        )
    if spread > BEST_OF_N:
        warnings.append(
            f"the spread of rewards within prompts is {spread:.1f} tau: above {BEST_OF_N} the best "
            "response alone decides log_z (best-of-n regression); raise rpo.tau for a partition"
        )
    if health["singleton_share"] and not health["prior_strength"]:
        warnings.append(
            f"{health['singleton_share']:.0%} of the prompts have one response, whose target is 0: "
            "it teaches nothing (rpo.prior_strength borrows from the other prompts)"
        )
    if health["estimator"] == "reference_weighted":
        warnings.append(
            "reference_weighted is not normalised: its level depends on n and on the reference, "
            f"not on the rewards (mean target {health['target_mean']:.2f} nats); for reproduction"
        )
    return warnings
