"""Measures how far the estimates of log_z can be trusted, and warns."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch

from rpo_pipeline.core import calibration
from rpo_pipeline.params import RpoParams

MISCALIBRATED = 0.5
"""Leave-one-out calibration, in nats, above which a warning is given."""
BEST_OF_N = 2.0
"""sd(r)/tau above which log_z is close to the best response's reward, not to the partition."""


def health_report(
    rows: pd.DataFrame,
    used: pd.DataFrame,
    table: pd.DataFrame,
    log_z_without: np.ndarray,
    rpo: RpoParams,
    *,
    tau: float,
) -> dict[str, Any]:
    """Summarise the partition over its prompts.

    Args:
        rows: Logged rows with target, labeler, behaviour_logps, and flags of cut texts.
        used: Rows of the estimate: logged rows, samples of the reference, or both.
        table: Partition table, one line per prompt.
        log_z_without: log_z of a used row's prompt without the row, in nats; NaN for an only row.
        rpo: Estimator and its settings.
        tau: Temperature.

    Returns:
        Numbers, None if the estimator has none, and ``warnings``, a list of texts.
    """
    sampled = used["row_id"].isna() if "row_id" in used else pd.Series(True, index=used.index)
    health: dict[str, Any] = {
        "estimator": rpo.estimator,
        "tau": tau,
        "logp_reduction": rpo.logp_reduction,
        "prior_strength": rpo.prior_strength,
        "fit_level": rpo.fit_level,
        "num_prompts": len(table),
        "num_rows": len(rows),
        "num_sampled_prompts": int(used.loc[sampled, "prompt_id"].nunique()),
        "num_samples": int(sampled.sum()),
        "num_behaviour_prompts": _prompts_with_behaviour(rows),
        "num_rows_that_teach_nothing": _rows_that_teach_nothing(rows, table),
        "singleton_share": float((table["n"] == 1).mean()),
        "constant_reward_share": float((rows.groupby("prompt_id")["reward"].nunique() == 1).mean()),
        "cut_prompt_share": float(rows.groupby("prompt_id")["prompt_is_cut"].any().mean()),
        "cut_response_share": float(rows["response_is_cut"].mean()),
        "other_labeler_share": _other_labeler_share(rows, used[sampled]),
        "reward_std_over_tau": _reward_std(used, len(table)) / tau,
        "n_used_mean": float(table["n_used"].mean()),
        "ess_mean": float(table["ess"].mean()),
        "ess_weights_mean": float(table["ess_weights"].mean()),
        "target_mean": float(rows["target"].mean()),
        "target_std": float(rows["target"].std(ddof=0)),
        "log_z_se_mean": _none_if_nan(table["log_z_se"].mean()),
        "log_z_bias_mean": _none_if_nan(table["log_z_bias"].mean()),
        "calibration": _none_if_nan(_calibration(used, log_z_without, tau)),
    }
    return {**health, "warnings": _warnings(health)}


def _prompts_with_behaviour(rows: pd.DataFrame) -> int:
    """Count the prompts of which every row has behaviour_logps, so that weights are comparable."""
    return int(rows["behaviour_logps"].notna().groupby(rows["prompt_id"]).all().sum())


def _rows_that_teach_nothing(rows: pd.DataFrame, table: pd.DataFrame) -> int:
    alone = rows["prompt_id"].isin(table.loc[table["n_used"] == 1, "prompt_id"])
    return int((alone & (rows["target"].abs() < 1e-9)).sum())


def _other_labeler_share(rows: pd.DataFrame, samples: pd.DataFrame) -> float:
    """Compute the share of logged rows of sampled prompts with a label of another labeler."""
    compared = rows[rows["prompt_id"].isin(samples["prompt_id"])]
    other = ~compared["labeler"].isin(samples["labeler"])
    return float(other.mean()) if len(compared) else 0.0


def _reward_std(used: pd.DataFrame, num_prompts: int) -> float:
    """Compute the standard deviation of rewards within prompts."""
    means = used.groupby("prompt_id")["reward"].transform("mean")
    within = (used["reward"] - means).pow(2).sum()
    return math.sqrt(within / max(1, len(used) - num_prompts))


def _calibration(used: pd.DataFrame, log_z_without: np.ndarray, tau: float) -> float:
    """Compute the leave-one-out calibration on prompts with several responses."""
    sizes = used.groupby("prompt_id")["reward"].transform("size")
    several = (sizes >= 2).to_numpy() & np.isfinite(log_z_without)
    rewards = used.loc[several, "reward"].to_numpy(np.float64, copy=True)
    return calibration(torch.from_numpy(rewards), torch.from_numpy(log_z_without[several]), tau=tau)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _warnings(health: dict[str, Any]) -> list[str]:
    warnings = []
    error, spread = health["calibration"], health["reward_std_over_tau"]
    if health["fit_level"]:  # takes the place of what log_z is off by on all prompts
        error, spread = None, 0.0
    if error is not None and abs(error) > MISCALIBRATED:
        warnings.append(
            f"log_z is off by {error:.2f} nats on rows that it has not seen (0 is right, the limit "
            f"{MISCALIBRATED}): raise rpo.tau or rpo.prior_strength, or log more responses a prompt"
        )
    if spread > BEST_OF_N and health["estimator"] != "quantile":
        warnings.append(
            f"the spread of rewards within prompts is {spread:.1f} tau: above {BEST_OF_N} the best "
            "response alone decides log_z (best-of-n regression); raise rpo.tau for a partition"
        )
    if health["num_rows_that_teach_nothing"]:
        warnings.append(
            f"{health['num_rows_that_teach_nothing']} of {health['num_rows']} rows are the only "
            "response of their prompt and have target 0: each teaches nothing (rpo.prior_strength "
            "above 0 borrows from other prompts, rpo.estimator: reference_samples samples)"
        )
    if health["estimator"] == "self_normalized":
        lacking = health["num_prompts"] - health["num_behaviour_prompts"]
        if lacking:
            warnings.append(
                f"{lacking} of {health['num_prompts']} prompts lack behaviour_logps on some row: "
                "self_normalized weighs them by alpha * mean_logps_ref, a heuristic"
            )
    if health["other_labeler_share"]:
        warnings.append(
            f"{health['other_labeler_share']:.0%} of the rows that are compared with samples of "
            "the reference were labelled by another labeler than the samples: make sure that the "
            "labelers share one scale (labeling.labelers)"
        )
    if health["estimator"] == "reference_weighted":
        warnings.append(
            "reference_weighted is not normalised: its level depends on n and on the reference, "
            f"not on the rewards (mean target {health['target_mean']:.2f} nats); for reproduction"
        )
    return warnings
