"""Objectives of the training loop: the losses of a batch's rows, and the divisor of their sum.

Shapes: R rows of a micro-batch. "By row" means by position in the table of training rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.core import dro_loss, kto_loss, kto_reference_point, rpo_loss, sft_loss
from rpo_pipeline.engine import Group, GroupBatch, default_device
from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.params import KtoParams, ObjectiveParams


@dataclass(frozen=True)
class RowScores:
    """Outputs of the policy for a micro-batch."""

    logps: Tensor
    """Summed log-probability of each row, in nats, with gradients, shape ``(R,)``."""
    values: Tensor | None = None
    """Value of each row's prompt, in nats, with gradients, shape ``(R,)``, if there is a
    value head."""
    reference_point: Tensor | None = None
    """Number that the objective computes over the whole step."""


class Cached(NamedTuple):
    """Log-probabilities that were computed with the reference, in ``partition_estimation``."""

    groups: Sequence[Group]
    ref_logps: Tensor
    """Summed over the response, in nats, of the rows of the groups as listed, shape ``(R,)``."""


class Objective(Protocol):
    """A loss that is a sum over rows, divided by a number known before the forward pass.

    The default is the mean over rows without a reference point.
    """

    value_learning_rate: float | None = None
    """Peak learning rate of the value head; null for an objective without values."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """Return the divisor of the losses of a whole step: the number of rows."""
        return sum(len(group.rows) for group in groups)

    def reference_point(
        self,
        groups: Sequence[Group],  # noqa: ARG002 (some objectives read them)
        score: Callable[[Sequence[Group]], Tensor],  # noqa: ARG002
    ) -> Tensor | None:
        """Compute a number over the whole step, before its losses.

        Args:
            groups: Groups of the whole step.
            score: Function that computes the summed log-probabilities under the policy of the rows
                of groups, without gradients, shape ``(R,)``, group by group as listed.

        Returns:
            The number, without gradients, for ``row_losses``; None for no number.
        """
        return None

    def cached(self, groups: Sequence[Group]) -> list[Cached]:  # noqa: ARG002
        """Return cached log-probabilities of the reference for the rows of groups; here none."""
        return []

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of each row, and numbers to log, each shape ``(R,)``."""


@dataclass(frozen=True)
class RpoObjective(Objective):
    """Squared distance between log-ratio and target, in nats^2; QRPO uses it with its targets."""

    ref_logps: Tensor
    """Cached reference log-probabilities by row, summed over the response."""
    targets: Tensor
    """``r / tau - log_z`` by row, in nats."""
    per_token: bool
    """``logp_reduction: mean``: log-probabilities are averaged over the response's tokens."""

    def cached(self, groups: Sequence[Group]) -> list[Cached]:
        """Return the cached log-probabilities of the logged responses."""
        return [Cached(groups, self.ref_logps[_rows(groups)])]

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the RPO loss of each row, in nats^2."""
        targets = self.targets[batch.rows]
        logps, ref_logps = _reduced(scores.logps, self.ref_logps, batch, per_token=self.per_token)
        log_ratio = (logps - ref_logps).detach()
        metrics = {"log_ratio": log_ratio, "residual": log_ratio - targets}
        return rpo_loss(logps, ref_logps, targets), metrics


@dataclass(frozen=True)
class DroObjective(Objective):
    """DRO-V: RPO's squared distance with a value that a head learns, in the place of log_z."""

    ref_logps: Tensor
    """Cached reference log-probabilities by row, summed over the response."""
    scaled_rewards: Tensor
    """``r / tau`` by row, in nats."""
    per_token: bool
    """``logp_reduction: mean``: log-probabilities are averaged over the response's tokens."""
    value_learning_rate: float
    """Peak learning rate of the value head."""

    def cached(self, groups: Sequence[Group]) -> list[Cached]:
        """Return the cached log-probabilities of the logged responses."""
        return [Cached(groups, self.ref_logps[_rows(groups)])]

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the DRO-V loss of each row, in nats^2."""
        assert scores.values is not None
        scaled_rewards, values = self.scaled_rewards[batch.rows], scores.values
        logps, ref_logps = _reduced(scores.logps, self.ref_logps, batch, per_token=self.per_token)
        log_ratio, value = (logps - ref_logps).detach(), values.detach()
        residual = log_ratio - scaled_rewards + value
        metrics = {"log_ratio": log_ratio, "residual": residual, "value": value}
        return dro_loss(logps, ref_logps, scaled_rewards, values), metrics


@dataclass(frozen=True)
class KtoObjective(Objective):
    """KTO over summed log-probabilities; its reference point is of the whole step."""

    ref_logps: Tensor
    """Cached reference log-probabilities by row, summed over the response."""
    desirable: Tensor
    """Whether the row's reward is above the train mean, bool, by row."""
    partner_prompts: Mapping[str, list[int]]
    """Token ids of the other prompt that the responses of a group are paired with, by prompt_id."""
    mismatched_ref_logps: Tensor
    """Cached reference log-probabilities of the mismatched pairs, by row of the response."""
    settings: KtoParams

    def reference_point(
        self, groups: Sequence[Group], score: Callable[[Sequence[Group]], Tensor]
    ) -> Tensor:
        """Compute KTO's ``z0`` over the mismatched pairs of a step, in nats, shape ``()``."""
        _, (pairs, ref_logps) = self.cached(groups)
        return kto_reference_point(score(pairs), ref_logps)

    def cached(self, groups: Sequence[Group]) -> list[Cached]:
        """Return the cached log-probabilities of the logged responses and the mismatched pairs."""
        pairs = [replace(group, prompt=self.partner_prompts[group.prompt_id]) for group in groups]
        rows = _rows(groups)
        return [
            Cached(groups, self.ref_logps[rows]),
            Cached(pairs, self.mismatched_ref_logps[rows]),
        ]

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the KTO loss of each row, from 0 to its weight."""
        assert scores.reference_point is not None
        ref_logps, desirable = self.ref_logps[batch.rows], self.desirable[batch.rows]
        losses = kto_loss(
            scores.logps,
            ref_logps,
            desirable,
            scores.reference_point,
            beta=self.settings.beta,
            desirable_weight=self.settings.desirable_weight,
            undesirable_weight=self.settings.undesirable_weight,
        )
        log_ratio = (scores.logps - ref_logps).detach()
        kl = scores.reference_point.expand_as(log_ratio)
        return losses, {"log_ratio": log_ratio, "kl": kl, "desirable_share": desirable.float()}


@dataclass(frozen=True)
class SftObjective(Objective):
    """Mean over response tokens of the negative log-likelihood, in nats."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """Return the number of response tokens."""
        return sum(len(ids) for group in groups for ids in group.responses)

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the negative log-likelihood of each row, in nats."""
        return sft_loss(scores.logps), {"mean_logps": scores.logps.detach() / batch.num_tokens}


def _rows(groups: Sequence[Group]) -> list[int]:
    return [row for group in groups for row in group.rows]


def _reduced(
    logps: Tensor, ref_logps: Tensor, batch: GroupBatch, *, per_token: bool
) -> tuple[Tensor, Tensor]:
    """Return the policy's and reference's logps of a batch, summed or averaged over tokens."""
    ref_logps = ref_logps[batch.rows]
    if per_token:
        return logps / batch.num_tokens, ref_logps / batch.num_tokens
    return logps, ref_logps


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
        DataError: If no response would be desirable for KTO.
    """
    if name == "sft":
        return SftObjective()
    assert settings is not None
    per_token = settings.rpo.logp_reduction == "mean"
    match name:
        case "kto":
            assert settings.kto is not None
            return _kto_objective(settings.kto, rows, groups)
        case "dro":
            assert settings.dro is not None
            scaled_rewards = _tensor(rows["reward"] / settings.dro.tau)
            return DroObjective(
                _tensor(rows["ref_logps"]),
                scaled_rewards,
                per_token,
                settings.dro.value_learning_rate,
            )
        case _:
            return RpoObjective(_tensor(rows["ref_logps"]), _tensor(rows["target"]), per_token)


def _kto_objective(
    settings: KtoParams, rows: pd.DataFrame, groups: Sequence[Group]
) -> KtoObjective:
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
        settings=settings,
    )


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float32, copy=True)).to(default_device())
