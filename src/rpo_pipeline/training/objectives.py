"""The objectives of the training loop.

Shapes: R rows of a micro-batch. "By row" means by position in the table of training rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from rpo_pipeline.core import (
    awr_loss,
    dro_loss,
    infonca_loss,
    kto_loss,
    kto_reference_point,
    nca_loss,
    rpo_loss,
    segment_logsumexp,
    segment_sum,
    sft_loss,
    tgo_loss,
    weighted_rpo_loss,
)
from rpo_pipeline.engine import Group, GroupBatch
from rpo_pipeline.params import KtoParams
from rpo_pipeline.training.objective import Cached, Objective, Responses, RowScores

LEVEL_RATE = 0.1
"""Share of a step in the running mean of residuals that is the level."""


@dataclass(frozen=True)
class _LogRatioObjective(Objective):
    """An objective over the log-ratio of policy and reference."""

    ref_logps: Tensor
    """Cached reference log-probabilities by row, summed over the response."""
    per_token: bool = field(kw_only=True)
    """``logp_reduction: mean``: log-probabilities are averaged over the response's tokens."""

    def cached(self, groups: Sequence[Group]) -> list[Cached]:
        """Return the cached log-probabilities of the logged responses."""
        return [Cached(groups, self.ref_logps[_rows(groups)])]

    def _reduced(self, logps: Tensor, rows: Tensor, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's and reference's logps of rows, summed or averaged over tokens."""
        divisor = num_tokens if self.per_token else 1
        return logps / divisor, self.ref_logps[rows] / divisor


@dataclass(frozen=True)
class RpoObjective(_LogRatioObjective):
    """Distance between log-ratio and target, in nats^2; QRPO uses it with its targets."""

    targets: Tensor
    """``r / tau - log_z`` by row, in nats."""
    huber_delta: Tensor | None = field(default=None, kw_only=True)
    """Distance by row, in nats, beyond which the loss is linear; none for squared distances."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the RPO loss of each row, in nats^2."""
        targets = self.targets[batch.rows]
        logps, ref_logps = self._reduced(scores.logps, batch.rows, batch.num_tokens)
        log_ratio = (logps - ref_logps).detach()
        metrics = {"log_ratio": log_ratio, "residual": log_ratio - targets}
        delta = self._huber_delta(batch.rows)
        return rpo_loss(logps, ref_logps, targets, huber_delta=delta), metrics

    def _huber_delta(self, rows: Tensor) -> Tensor | float:
        return math.inf if self.huber_delta is None else self.huber_delta[rows]


@dataclass(frozen=True)
class WeightedRpoObjective(RpoObjective):
    """RPO that allows for an error of log_z, which the responses of a prompt share."""

    weight: Tensor
    """Weight of the level against the mean of the prompt, ``1 / (1 + n rho)``, by row."""
    level: Tensor
    """Mean ``b`` of the errors over prompts, in nats, shape ``()``, which steps change in place."""
    fits_level: bool
    """Whether steps change the level."""

    @cached_property
    def joins_responses(self) -> bool:
        """Whether the mean of a prompt counts anywhere."""
        return bool((self.weight < 1).any())

    def shared(self, responses: Responses) -> Tensor:
        """Compute the mean residual of each prompt, in nats."""
        rows = responses.rows
        logps, ref_logps = self._reduced(responses.logps, rows, responses.num_tokens)
        residuals = logps - ref_logps - self.targets[rows]
        total = segment_sum(residuals, responses.prompt_index, responses.num_prompts)
        ones = torch.ones_like(residuals)
        return total / segment_sum(ones, responses.prompt_index, responses.num_prompts)

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted RPO loss of each row, in nats^2."""
        rows, targets, weight = batch.rows, self.targets[batch.rows], self.weight[batch.rows]
        logps, ref_logps = self._reduced(scores.logps, rows, batch.num_tokens)
        losses = weighted_rpo_loss(
            logps,
            ref_logps,
            targets,
            torch.zeros_like(ref_logps) if scores.shared is None else scores.shared,
            weight=weight,
            level=self.level,
            huber_delta=self._huber_delta(rows),
        )
        log_ratio = (logps - ref_logps).detach()
        residual = log_ratio - targets
        return losses, {
            "log_ratio": log_ratio,
            "residual": residual,
            "level": weight * residual,
            "level_weight": weight,
        }

    def end_step(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Move the level towards the mean residual of the step, and log the level."""
        logged = dict(metrics)
        mean, weight = logged.pop("level"), logged.pop("level_weight")
        if not self.fits_level:
            return logged
        if weight:
            self.level.lerp_(self.level.new_tensor(mean / weight), LEVEL_RATE)
        return logged | {"level": float(self.level)}

    def state(self) -> dict[str, Tensor]:
        """Return the level."""
        return {"level": self.level}


@dataclass(frozen=True)
class DroObjective(_LogRatioObjective):
    """DRO-V: RPO's squared distance with a value that a head learns, in the place of log_z."""

    scaled_rewards: Tensor
    """``r / tau`` by row, in nats."""
    value_learning_rate: float
    """Peak learning rate of the value head."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the DRO-V loss of each row, in nats^2."""
        assert scores.values is not None
        scaled_rewards, values = self.scaled_rewards[batch.rows], scores.values
        logps, ref_logps = self._reduced(scores.logps, batch.rows, batch.num_tokens)
        log_ratio, value = (logps - ref_logps).detach(), values.detach()
        residual = log_ratio - scaled_rewards + value
        metrics = {"log_ratio": log_ratio, "residual": residual, "value": value}
        return dro_loss(logps, ref_logps, scaled_rewards, values), metrics


@dataclass(frozen=True)
class TgoObjective(_LogRatioObjective):
    """A logistic loss on whether the reward exceeds the median; always over summed logps."""

    rewards: Tensor
    """Normalised reward by row."""
    threshold: float
    """Median reward of train."""
    beta: float

    def denominator(self, groups: Sequence[Group]) -> float:
        """Return the sum of the weights of the rows."""
        distances = (self.rewards[_rows(groups)] - self.threshold).abs()
        return float((1 + distances).sum())

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the threshold-guided loss of each row."""
        ref_logps, rewards = self.ref_logps[batch.rows], self.rewards[batch.rows]
        losses = tgo_loss(
            scores.logps, ref_logps, rewards, threshold=self.threshold, beta=self.beta
        )
        return losses, {"log_ratio": (scores.logps - ref_logps).detach()}


@dataclass(frozen=True)
class NcaObjective(_LogRatioObjective):
    """Noise contrastive alignment over summed logps."""

    shares: Tensor
    """``n softmax(r / alpha)`` over the responses of the prompt, by row."""
    beta: float

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the NCA loss of each row."""
        ref_logps, shares = self.ref_logps[batch.rows], self.shares[batch.rows]
        losses = nca_loss(scores.logps, ref_logps, shares, beta=self.beta)
        return losses, {"log_ratio": (scores.logps - ref_logps).detach()}


@dataclass(frozen=True)
class InfoncaObjective(NcaObjective):
    """Cross-entropy from rewards to log-ratios over the responses of a prompt."""

    @property
    def joins_responses(self) -> bool:
        """The normaliser is a sum over the responses."""
        return True

    def shared(self, responses: Responses) -> Tensor:
        """Compute ``log mean_i exp(beta log_ratio_i)`` of each prompt."""
        log_odds = self.beta * (responses.logps - self.ref_logps[responses.rows])
        index, num_prompts = responses.prompt_index, responses.num_prompts
        sizes = segment_sum(torch.ones_like(log_odds), index, num_prompts)
        return segment_logsumexp(log_odds, index, num_prompts) - sizes.log()

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the InfoNCA loss of each row."""
        assert scores.shared is not None
        ref_logps, shares = self.ref_logps[batch.rows], self.shares[batch.rows]
        losses = infonca_loss(scores.logps, ref_logps, shares, scores.shared, beta=self.beta)
        return losses, {"log_ratio": (scores.logps - ref_logps).detach()}


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


@dataclass(frozen=True)
class AwrObjective(SftObjective):
    """The negative log-likelihood, with a weight of the reward."""

    weights: Tensor
    """``exp(r / tau)`` over its mean, by row."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted negative log-likelihood of each row, in nats."""
        _, metrics = super().row_losses(scores, batch)
        return awr_loss(scores.logps, self.weights[batch.rows]), metrics


def _rows(groups: Sequence[Group]) -> list[int]:
    return [row for group in groups for row in group.rows]
