"""What a loss of the training loop computes, and what it needs for that.

Shapes: R rows of a micro-batch. "By row" means by position in the table of training rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from rpo_pipeline.engine import Group, GroupBatch


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
    shared: Tensor | None = None
    """Number that the objective computes over all responses of each row's prompt, shape ``(R,)``,
    without gradients."""


class Cached(NamedTuple):
    """Log-probabilities that were computed with the reference, in ``partition_estimation``."""

    groups: Sequence[Group]
    ref_logps: Tensor
    """Summed over the response, in nats, of the rows of the groups as listed, shape ``(R,)``."""


class Responses(NamedTuple):
    """Responses of some prompts, with their log-probabilities under the policy."""

    logps: Tensor
    """Summed over the response, in nats, without gradients, shape ``(R,)``."""
    rows: Tensor
    """Position of each response in the table of training rows, int64, shape ``(R,)``."""
    num_tokens: Tensor
    """Number of tokens of each response, shape ``(R,)``."""
    prompt_index: Tensor
    """Prompt of each response, int64, shape ``(R,)``, values ``0..P-1``."""
    num_prompts: int


class Objective:
    """A loss that is a sum over rows, divided by a number known before the forward pass.

    The default is the mean over rows, in which no row needs another.
    """

    value_learning_rate: float | None = None
    """Peak learning rate of the value head; null for an objective without values."""

    @property
    def joins_responses(self) -> bool:
        """Whether the loss of a response depends on the other responses of its prompt."""
        return False

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

    def shared(self, responses: Responses) -> Tensor:
        """Compute a number over all responses of each prompt, shape ``(P,)``.

        It is called only where ``joins_responses``.
        """
        raise NotImplementedError

    def cached(self, groups: Sequence[Group]) -> list[Cached]:  # noqa: ARG002
        """Return cached log-probabilities of the reference for the rows of groups; here none."""
        return []

    def row_losses(self, scores: RowScores, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of each row, and numbers to log, each shape ``(R,)``."""
        raise NotImplementedError

    def end_step(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Learn from a step, and return its metrics as they are logged.

        Args:
            metrics: Numbers of ``row_losses``, averaged over the rows of the step.

        Returns:
            The numbers to log.
        """
        return dict(metrics)

    def state(self) -> dict[str, Tensor]:
        """Return what the objective has learned, which a checkpoint restores in place."""
        return {}
