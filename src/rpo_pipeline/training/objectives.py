"""Objectives as the loop sees them: losses of a batch's rows, and what their sum is divided by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rpo_pipeline.core.objectives import rpo_loss, sft_loss
from rpo_pipeline.data.groups import Group, GroupBatch


class Objective(Protocol):
    """A loss that is a sum over rows, divided by a number known before the forward pass."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """What the losses of one optimizer step are divided by."""

    def row_losses(self, logps: Tensor, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each row, and numbers to log, each shape ``(R,)``."""


@dataclass(frozen=True)
class RpoObjective:
    """Mean over rows of the squared distance between log-ratio and target, in nats^2."""

    ref_logps: Tensor
    """Cached reference log-probabilities by row, summed over the response."""
    targets: Tensor
    """``r / tau - log_z`` by row, in nats."""
    per_token: bool
    """``logp_reduction: mean``: log-probabilities are averaged over the response's tokens."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """Number of rows."""
        return sum(len(group.rows) for group in groups)

    def row_losses(self, logps: Tensor, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """RPO loss of each row, in nats^2."""
        ref_logps, targets = self.ref_logps[batch.rows], self.targets[batch.rows]
        if self.per_token:
            logps, ref_logps = logps / batch.num_tokens, ref_logps / batch.num_tokens
        log_ratio = (logps - ref_logps).detach()
        metrics = {"log_ratio": log_ratio, "residual": log_ratio - targets}
        return rpo_loss(logps, ref_logps, targets), metrics


@dataclass(frozen=True)
class SftObjective:
    """Mean over response tokens of the negative log-likelihood, in nats."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """Number of response tokens."""
        return sum(len(ids) for group in groups for ids in group.responses)

    def row_losses(self, logps: Tensor, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood of each row, in nats."""
        return sft_loss(logps), {"mean_logps": logps.detach() / batch.num_tokens}
