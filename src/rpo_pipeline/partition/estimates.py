"""Estimates log_z of every prompt of a feedback table, and the target of every row."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.core import (
    Partition,
    Prior,
    behaviour_weights,
    effective_size,
    estimate_partition,
    fit_prior,
    partition_of_levels,
    quantile_log_z,
    quantiles,
)
from rpo_pipeline.errors import DataError
from rpo_pipeline.params import RpoParams
from rpo_pipeline.partition.health import health_report
from rpo_pipeline.partition.levels import is_single

logger = logging.getLogger(__name__)


def partition_rows(
    rows: pd.DataFrame, samples: pd.DataFrame, rpo: RpoParams, *, tau: float
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Estimate log_z of every prompt, and from it the target of every row.

    Args:
        rows: Labelled rows: row_id, prompt_id, split, reward, labeler, behaviour_logps (NaN where
            the log lacks it), and of the reference logps, num_tokens, prompt_is_cut and
            response_is_cut; level, from ``add_levels``, if no train prompt has two responses.
        samples: Responses of the reference to prompts that are not estimated from the log:
            prompt_id, reward, labeler.
        rpo: Settings of ``settle_estimation``.
        tau: Temperature in units of the reward, or of the quantile for ``quantile``.

    Returns:
        The partition table, one line per prompt; row_id, target (nats), rho and huber_delta (nats,
        null for none) of every row; the health report.

    Raises:
        DataError: If ``quantile`` lacks the samples of a prompt.
    """
    assert rpo.estimator != "auto"
    logger.info("log_z of %d rows by %s at tau %g", len(rows), rpo.estimator, tau)
    rows = rows.sort_values(["prompt_id", "row_id"], ignore_index=True)
    # The log's number is of the whole response, and the reference's of the response as it was cut.
    rows["behaviour_logps"] = rows["behaviour_logps"].where(~rows["response_is_cut"])
    if rpo.estimator == "quantile":
        rows, used, estimate = _by_quantile(rows, samples, tau)
    else:
        used = _used_rows(rows, samples) if rpo.estimator == "reference_samples" else rows
        estimate = _by_rewards(used, rpo, tau)
    log_z = estimate.log_z.numpy()[pd.factorize(rows["prompt_id"])[0]]
    rows["target"] = rows["reward"] / tau - log_z
    table = _table(rows, used, estimate, tau)
    rows["rho"] = _rho(rows, table, rpo)
    rows["huber_delta"] = np.nan if rpo.huber_delta is None else rpo.huber_delta / tau
    health = health_report(rows, used, table, estimate.log_z_without.numpy(), rpo, tau=tau)
    health["from_other_prompts"] = _has_levels(used, rpo)
    for warning in health["warnings"]:
        logger.warning(warning)
    return table, rows[["row_id", "target", "rho", "huber_delta"]], health


def _rho(rows: pd.DataFrame, table: pd.DataFrame, rpo: RpoParams) -> pd.Series:
    """Compute the variance of the error of log_z over that of a row, for each row.

    With ``auto`` the error of a prompt is its standard error, and that of a row the pooled variance
    of targets within the prompts of train.
    """
    if rpo.rho != "auto":
        return pd.Series(rpo.rho, index=rows.index)
    train = rows[rows["split"] == "train"]
    by_prompt = train.groupby("prompt_id")["target"]
    within = (train["target"] - by_prompt.transform("mean")).pow(2).sum()
    variance = within / max(1, len(train) - by_prompt.ngroups)
    errors = rows["prompt_id"].map(table.set_index("prompt_id")["log_z_se"])
    return (errors.pow(2) / variance).fillna(0.0) if variance else pd.Series(0.0, index=rows.index)


def _used_rows(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for the estimate: a prompt's samples if it has any, else its logged rows."""
    if samples.empty:
        return rows  # an empty table has no types to concatenate
    splits = rows.drop_duplicates("prompt_id").set_index("prompt_id")["split"]
    logged = rows[~rows["prompt_id"].isin(samples["prompt_id"])]
    sampled = samples.assign(split=samples["prompt_id"].map(splits))
    return pd.concat([logged, sampled]).sort_values("prompt_id", kind="stable", ignore_index=True)


def _by_rewards(used: pd.DataFrame, rpo: RpoParams, tau: float) -> Partition:
    group, num_groups = _groups(used)
    if _has_levels(used, rpo):
        return _by_levels(used, group, num_groups, tau)
    return estimate_partition(
        _tensor(used["reward"]),
        _log_weights(used, group, num_groups, rpo),
        group,
        num_groups,
        tau=tau,
        normalised=rpo.estimator != "reference_weighted",
        prior=_train_prior(used, rpo, tau) if rpo.prior_strength else None,
    )


def _has_levels(used: pd.DataFrame, rpo: RpoParams) -> bool:
    return bool(rpo.prior_strength) and rpo.estimator != "quantile" and is_single(used)


def _by_levels(used: pd.DataFrame, group: Tensor, num_groups: int, tau: float) -> Partition:
    """Estimate log_z from the levels of the prompts; a prompt's rows all have its level."""
    level = _tensor(used["level"])
    levels = torch.zeros(num_groups, dtype=level.dtype).index_copy(0, group, level)
    train = torch.tensor((used["split"] == "train").tolist())
    estimate = partition_of_levels(levels, (_tensor(used["reward"]) - level)[train], tau=tau)
    return replace(estimate, log_z_without=estimate.log_z[group])


def _log_weights(rows: pd.DataFrame, group: Tensor, num_groups: int, rpo: RpoParams) -> Tensor:
    if rpo.estimator in ("monte_carlo", "reference_samples"):
        return torch.zeros(len(rows), dtype=torch.float64)
    mean_ref_logps = _tensor(rows["logps"]) / _tensor(rows["num_tokens"])
    if rpo.estimator == "reference_weighted":
        return mean_ref_logps
    weights = behaviour_weights(
        _tensor(rows["logps"]),
        _tensor(rows["behaviour_logps"]),
        group,
        num_groups,
        alpha=rpo.self_normalized_alpha,
        clip=rpo.self_normalized_clip,
    )
    return torch.where(weights.isnan(), rpo.self_normalized_alpha * mean_ref_logps, weights)


def _train_prior(used: pd.DataFrame, rpo: RpoParams, tau: float) -> Prior:
    train = used[used["split"] == "train"]
    group, num_groups = _groups(train)
    return fit_prior(
        _tensor(train["reward"]), group, num_groups, tau=tau, strength=rpo.prior_strength
    )


def _by_quantile(
    rows: pd.DataFrame, samples: pd.DataFrame, tau: float
) -> tuple[pd.DataFrame, pd.DataFrame, Partition]:
    """Replace rewards of rows and samples by quantiles, and compute log_z of their grid."""
    samples = samples.sort_values(["prompt_id", "reward"], ignore_index=True)
    codes, prompt_ids = pd.factorize(samples["prompt_id"])
    rewards = _tensor(samples["reward"]).reshape(len(prompt_ids), -1)
    group = torch.from_numpy(prompt_ids.get_indexer(pd.Index(rows["prompt_id"])))
    if (group < 0).any():
        raise DataError(
            f"{int((group < 0).sum())} rows have no samples of the reference to stand among; run "
            "`kedro run --pipelines partition_estimation`"
        )
    placed = quantiles(_tensor(rows["reward"])[:, None], rewards[group])
    rows = rows.assign(reward=placed.flatten().numpy())
    samples = samples.assign(reward=quantiles(rewards, rewards).flatten().numpy())
    unknown = torch.full((len(prompt_ids),), torch.nan, dtype=torch.float64)
    terms = _tensor(samples["reward"]) / tau
    sample_group = torch.from_numpy(codes.astype(np.int64))
    return (
        rows,
        samples,
        Partition(
            log_z=quantile_log_z(rewards, tau=tau),
            log_z_se=unknown,
            log_z_bias=unknown,
            ess=effective_size(terms, sample_group, len(prompt_ids)),
            ess_weights=torch.full_like(unknown, rewards.shape[1]),
            log_z_without=torch.full_like(terms, torch.nan),
        ),
    )


def _table(rows: pd.DataFrame, used: pd.DataFrame, estimate: Partition, tau: float) -> pd.DataFrame:
    by_prompt, rewards = rows.groupby("prompt_id"), used.groupby("prompt_id")["reward"]
    return pd.DataFrame(
        {
            "n": by_prompt.size(),
            "n_used": rewards.size(),
            "log_z": estimate.log_z.numpy(),
            "log_z_se": estimate.log_z_se.numpy(),
            "log_z_bias": estimate.log_z_bias.numpy(),
            "ess": estimate.ess.numpy(),
            "ess_weights": estimate.ess_weights.numpy(),
            "target_mean": by_prompt["target"].mean(),
            "target_std": by_prompt["target"].std(ddof=0),
            "reward_std_over_tau": rewards.std() / tau,
        }
    ).reset_index()


def _groups(rows: pd.DataFrame) -> tuple[Tensor, int]:
    codes, prompt_ids = pd.factorize(rows["prompt_id"])
    return torch.from_numpy(codes.astype(np.int64)), len(prompt_ids)


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float64, copy=True))
