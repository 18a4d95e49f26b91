"""Objectives: pure functions from log-probabilities to one loss per row.

Shapes: R rows. Log-probabilities are in nats, summed over the response or averaged over its tokens
as the caller chose; all inputs share one reduction.
"""

from torch import Tensor


def rpo_loss(logps: Tensor, ref_logps: Tensor, targets: Tensor) -> Tensor:
    """Reward Partition Optimization: regress the log-ratio on the reward.

    ``1/2 (logps - ref_logps - target)^2`` with ``target = r / tau - log_z``.

    Args:
        logps: Of the policy, with gradients, shape ``(R,)``.
        ref_logps: Of the reference, shape ``(R,)``.
        targets: In nats, shape ``(R,)``.

    Returns:
        In nats^2, shape ``(R,)``.

    Source:
        Faye et al., arXiv:2506.13702, the RPO loss, in units of the log-ratio.
    """
    return 0.5 * (logps - ref_logps - targets).square()


def sft_loss(logps: Tensor) -> Tensor:
    """Supervised fine-tuning: negative log-likelihood in nats, shape ``(R,)``."""
    return -logps
