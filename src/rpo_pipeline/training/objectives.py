"""Objectives as the loop sees them: losses of a batch's rows, and what their sum is divided by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rpo_pipeline.core.objectives import rpo_loss, sft_loss
from rpo_pipeline.data.groups import Group, GroupBatch
from rpo_pipeline.params import RpoParams


@dataclass(frozen=True)
class RowScores:
    """What the policy says of the rows of a batch."""

    logps: Tensor
    values: Tensor | None = None
    reference_point: Tensor | None = None


class Objective(Protocol):
    """A loss that is a sum over rows, divided by a number known before the forward pass."""

    def denominator(self, groups: Sequence[Group]) -> float:
        """What the losses of one optimizer step are divided by."""

    def reference_point(
        self, groups: Sequence[Group], score: Callable[[Sequence[Group]], Tensor]
    ) -> Tensor | None:
        """What the whole step must know before its losses."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
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

    def reference_point(
        self, groups: Sequence[Group], score: Callable[[Sequence[Group]], Tensor]
    ) -> None:
        """Nothing."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logps = scores.logps
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

    def reference_point(
        self, groups: Sequence[Group], score: Callable[[Sequence[Group]], Tensor]
    ) -> None:
        """Nothing."""

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logps = scores.logps
        """Negative log-likelihood of each row, in nats."""
        return sft_loss(logps), {"mean_logps": logps.detach() / batch.num_tokens}


def build_objective(
    rows: pd.DataFrame,
    objective: Literal["rpo", "sft", "kto", "dro", "qrpo"],
    rpo: RpoParams | None,
) -> Objective:
    """The objective of a training, on the device of the policy."""
    if objective == "sft" or rpo is None:
        return SftObjective()
    return RpoObjective(
        ref_logps=_tensor(rows["ref_logps"]),
        targets=_tensor(rows["target"]),
        per_token=rpo.logp_reduction == "mean",
    )


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(np.float32, copy=True))
