"""Builds the objective of a training, with its numbers of each row."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.core import segment_logsumexp, segment_sum
from rpo_pipeline.engine import Group, default_device
from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import AwrParams, ObjectiveParams
from rpo_pipeline.training.objective import Objective
from rpo_pipeline.training.objectives import (
    AwrObjective,
    DroObjective,
    InfoncaObjective,
    KtoObjective,
    NcaObjective,
    RpoObjective,
    SftObjective,
    TgoObjective,
    WeightedRpoObjective,
)

LARGEST_LOG_WEIGHT = 50.0
"""Largest logarithm of a weight of awr: of a validation row whose reward train does not reach."""
_FROM_DIFFERENCES = (
    "it learns only from differences between the rewards of a prompt (training.objective: rpo, tgo "
    "or kto learns from one response a prompt)"
)
_FROM_REWARDS = "each equals what is expected of its prompt (look at `labeling`)"
REMEDIES = {
    "rpo": f"{_FROM_REWARDS}; for one response a prompt rpo.prior_strength must be above 0",
    "qrpo": _FROM_REWARDS,
    "dro": _FROM_REWARDS,
    "tgo": "all have the same reward (look at `labeling`)",
    "awr": "they have the same weights, so the rewards would not count (awr.mean_over: train)",
    **dict.fromkeys(("rebel", "nca", "infonca"), _FROM_DIFFERENCES),
}
"""End of the message where no row teaches anything, by objective."""


def build_objective(
    name: str, settings: ObjectiveParams | None, rows: pd.DataFrame, groups: Sequence[Group]
) -> Objective:
    """Build the objective of a training with its numbers of each row.

    Args:
        name: ``training.objective``.
        settings: Settings of all objectives; ``sft`` needs none.
        rows: Table of ``training_rows``, with train and validation rows only.
        groups: The same rows tokenised.

    Returns:
        The objective.

    Raises:
        ConfigError: If KTO's mismatched pairs were not scored for these rows.
        DataError: If the rows teach this objective nothing: before the first step, the loss of
            each has a gradient of exactly 0.
    """
    if name == "sft":
        return SftObjective()
    assert settings is not None
    train = rows[rows["split"] == "train"]
    if len(train) and teaches_nothing(name, settings, train):
        raise DataError(
            f"no row would teach {name} anything: before the first step, the reward of none of "
            f"{len(train)} train rows counts. They have {train['prompt_id'].nunique()} prompts and "
            f"{train['reward'].nunique()} different rewards, and {REMEDIES[name]}"
        )
    return BUILDERS[name](settings, rows, groups)


def _rpo(settings: ObjectiveParams, rows: pd.DataFrame, groups: Sequence[Group]) -> RpoObjective:
    # The rows decide, so that a run of a part of the pipeline has one loss.
    fits_level, targets = settings.rpo.fit_level, _tensor(rows["target"])
    huber_delta = _tensor(rows["huber_delta"]) if rows["huber_delta"].notna().all() else None
    if not rows["rho"].any() and not fits_level:
        return RpoObjective(targets=targets, huber_delta=huber_delta, **_log_ratio(settings, rows))
    rho = _tensor(rows["rho"])
    return _weighted(
        settings, rows, groups, targets, rho, fits_level=fits_level, huber_delta=huber_delta
    )


def _qrpo(settings: ObjectiveParams, rows: pd.DataFrame, _: Sequence[Group]) -> RpoObjective:
    return RpoObjective(targets=_tensor(rows["target"]), **_log_ratio(settings, rows))


def _rebel(
    settings: ObjectiveParams, rows: pd.DataFrame, groups: Sequence[Group]
) -> WeightedRpoObjective:
    assert settings.rebel is not None
    scaled_rewards = _tensor(rows["reward"] / settings.rebel.tau)
    rho = torch.full_like(scaled_rewards, torch.inf)
    return _weighted(settings, rows, groups, scaled_rewards, rho, fits_level=False)


def _weighted(
    settings: ObjectiveParams,
    rows: pd.DataFrame,
    groups: Sequence[Group],
    targets: Tensor,
    rho: Tensor,
    *,
    fits_level: bool,
    huber_delta: Tensor | None = None,
) -> WeightedRpoObjective:
    num_responses = torch.zeros_like(targets)
    for group in groups:
        num_responses[group.rows] = float(len(group.rows))
    weight = 1 / (1 + num_responses * rho)
    level = torch.zeros((), device=targets.device)
    if fits_level:  # before the first step every log-ratio is 0, and the residual is -target
        learned = torch.tensor((rows["split"] == "train").tolist(), device=targets.device)
        level -= (weight * learned * targets).sum() / (weight * learned).sum()
    return WeightedRpoObjective(
        targets=targets,
        **_log_ratio(settings, rows),
        weight=weight,
        level=level,
        fits_level=fits_level,
        huber_delta=huber_delta,
    )


def _dro(settings: ObjectiveParams, rows: pd.DataFrame, _: Sequence[Group]) -> DroObjective:
    assert settings.dro is not None
    scaled_rewards = _tensor(rows["reward"] / settings.dro.tau)
    return DroObjective(
        scaled_rewards=scaled_rewards,
        value_learning_rate=settings.dro.value_learning_rate,
        **_log_ratio(settings, rows),
    )


def _tgo(settings: ObjectiveParams, rows: pd.DataFrame, _: Sequence[Group]) -> TgoObjective:
    assert settings.tgo is not None
    train = rows.loc[rows["split"] == "train", "reward"]
    # If most responses have the highest reward, none is above the median.
    threshold = train.median() if (train > train.median()).any() else train.mean()
    return TgoObjective(
        ref_logps=_tensor(rows["ref_logps"]),
        per_token=False,
        rewards=_tensor(rows["reward"]),
        threshold=float(threshold),
        beta=settings.tgo.beta,
    )


def _nca(
    settings: ObjectiveParams,
    rows: pd.DataFrame,
    groups: Sequence[Group],
    kind: type[NcaObjective] = NcaObjective,
) -> NcaObjective:
    assert settings.nca is not None
    return kind(
        ref_logps=_tensor(rows["ref_logps"]),
        per_token=False,
        shares=_softmax_shares(rows["reward"] / settings.nca.alpha, groups),
        beta=settings.nca.beta,
    )


def _awr(settings: ObjectiveParams, rows: pd.DataFrame, groups: Sequence[Group]) -> AwrObjective:
    assert settings.awr is not None
    return AwrObjective(_awr_weights(settings.awr, rows, groups))


def _awr_weights(settings: AwrParams, rows: pd.DataFrame, groups: Sequence[Group]) -> Tensor:
    scaled = rows["reward"] / settings.tau
    if settings.mean_over == "prompt":
        return _softmax_shares(scaled, groups)
    train = torch.from_numpy(scaled[rows["split"] == "train"].to_numpy(np.float64, copy=True))
    log_mean = float(train.logsumexp(0)) - float(np.log(len(train)))
    return _tensor(np.exp((scaled - log_mean).clip(upper=LARGEST_LOG_WEIGHT)))


def _softmax_shares(scaled: pd.Series, groups: Sequence[Group]) -> Tensor:
    """Compute ``n softmax`` over the responses of each prompt, by row."""
    values = torch.from_numpy(scaled.to_numpy(np.float64, copy=True))
    group = torch.zeros(len(values), dtype=torch.int64)
    for place, one in enumerate(groups):
        group[one.rows] = place
    sizes = segment_sum(torch.ones_like(values), group, len(groups))
    log_means = segment_logsumexp(values, group, len(groups)) - sizes.log()
    return (values - log_means[group]).exp().float().to(default_device())


def _kto(settings: ObjectiveParams, rows: pd.DataFrame, groups: Sequence[Group]) -> KtoObjective:
    assert settings.kto is not None
    prompts = {group.prompt_id: group.prompt for group in groups}
    unpaired = ~rows["mismatched_prompt_id"].isin(prompts.keys())
    if unpaired.any():
        raise ConfigError(
            f"{unpaired.sum()} of {len(rows)} rows have no mismatched log-probability, which "
            "`partition_estimation` computes only for training.objective: kto; run it again with "
            "that set (`kedro run --from-nodes score_mismatched --params training.objective=kto`)"
        )
    train_rewards = rows.loc[rows["split"] == "train", "reward"]
    if train_rewards.nunique() < 2:
        raise DataError(
            f"every train row has the reward {train_rewards.iloc[0]:g}, so none is desirable for "
            "KTO (look at `labeling`, or choose another training.objective)"
        )
    partners = dict(zip(rows["prompt_id"], rows["mismatched_prompt_id"], strict=True))
    return KtoObjective(
        ref_logps=_tensor(rows["ref_logps"]),
        desirable=_tensor(rows["reward"]) > float(train_rewards.mean()),
        partner_prompts={prompt_id: prompts[partner] for prompt_id, partner in partners.items()},
        mismatched_ref_logps=_tensor(rows["mismatched_ref_logps"]),
        settings=settings.kto,
    )


BUILDERS: Mapping[str, Callable[[ObjectiveParams, pd.DataFrame, Sequence[Group]], Objective]] = {
    "rpo": _rpo,
    "qrpo": _qrpo,
    "rebel": _rebel,
    "dro": _dro,
    "kto": _kto,
    "tgo": _tgo,
    "nca": _nca,
    "infonca": partial(_nca, kind=InfoncaObjective),
    "awr": _awr,
}
"""Function that builds each objective, by name."""


def teaches_nothing(name: str, settings: ObjectiveParams, train: pd.DataFrame) -> bool:
    """Tell whether the rewards of train count for nothing before the first step.

    Every log-ratio is 0 there. Then every gradient is 0, or that of a loss without rewards.

    Args:
        name: ``training.objective``.
        settings: Settings of the objective.
        train: Train rows of ``training_rows``.

    Returns:
        Whether training would change nothing.
    """
    match name:
        case "rpo" | "qrpo":
            fits_level = name == "rpo" and settings.rpo.fit_level
            pulls = train["target"] - (train["target"].mean() if fits_level else 0.0)
        case "rebel" | "nca" | "infonca":
            pulls = train["reward"] - train.groupby("prompt_id")["reward"].transform("mean")
        case "dro":
            pulls = train["reward"]
        case "tgo":
            pulls = train["reward"] - train["reward"].mean()
        case "awr":
            assert settings.awr is not None
            groups = "prompt_id" if settings.awr.mean_over == "prompt" else "split"
            pulls = train["reward"] - train.groupby(groups)["reward"].transform("mean")
        case _:
            return False
    return bool((pulls.abs() < 1e-9).all())


def _log_ratio(settings: ObjectiveParams, rows: pd.DataFrame) -> dict[str, Any]:
    per_token = settings.rpo.logp_reduction == "mean"
    return {"ref_logps": _tensor(rows["ref_logps"]), "per_token": per_token}


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float32, copy=True)).to(default_device())
