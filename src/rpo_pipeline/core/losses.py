"""Objectives: pure functions from log-probabilities to one loss per row.

Shapes: R rows (responses). Log-probabilities are in nats, summed over the response or averaged over
its tokens; all inputs of a call share one reduction.

QRPO (arXiv:2507.08068) has no function of its own: it is ``rpo_loss`` on targets of quantiles.
"""

import torch
from torch import Tensor


def rpo_loss(logps: Tensor, ref_logps: Tensor, targets: Tensor) -> Tensor:
    """Reward Partition Optimization: regress the log-ratio on the reward.

    ``1/2 (logps - ref_logps - target)^2`` with ``target = r / tau - log_z``.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        targets: Targets in nats, shape ``(R,)``.

    Returns:
        Loss of each row in nats^2, shape ``(R,)``.

    Source:
        Faye et al., arXiv:2506.13702, the RPO loss, in units of the log-ratio.
    """
    return 0.5 * (logps - ref_logps - targets).square()


def dro_loss(logps: Tensor, ref_logps: Tensor, scaled_rewards: Tensor, values: Tensor) -> Tensor:
    """DRO-V: RPO with a learned value in the place of log_z.

    ``1/2 (logps - ref_logps - r / tau + v)^2``, minimised over policy and ``v`` together: the
    policy moves its log-ratio to ``r / tau - v``, while ``v`` moves to the mean of ``r / tau -
    log_ratio`` over the responses of its prompt. The derivative by ``logps`` and by ``v`` is the
    same residual, and neither is detached here; the caller ensures that they share no weights (by a
    value head on detached states). At the joint optimum ``v = log Z``.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        scaled_rewards: ``r / tau``, in nats, shape ``(R,)``.
        values: ``v`` of each row's prompt, in nats, with gradients, shape ``(R,)``.

    Returns:
        Loss of each row in nats^2, shape ``(R,)``.

    Source:
        Richemond et al., arXiv:2405.19107, the DRO loss, divided by ``tau^2`` with ``V = tau v``.
    """
    return rpo_loss(logps, ref_logps, scaled_rewards - values)


def kto_loss(
    logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """Kahneman-Tversky Optimization: a saturating gain or loss from a reference point.

    With ``m = beta (logps - ref_logps - z0)``: ``w_D (1 - sigmoid(m))`` for a desirable response,
    ``w_U (1 - sigmoid(-m))`` for another.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        desirable: Whether each response is desirable, bool, shape ``(R,)``.
        reference_point: ``z0`` in nats, see ``kto_reference_point``, shape ``()``.
        beta: Sharpness, per nat, ``> 0``.
        desirable_weight: Weight ``w_D``.
        undesirable_weight: Weight ``w_U``.

    Returns:
        Loss of each row, from 0 to its weight, shape ``(R,)``.

    Source:
        Ethayarajh et al., arXiv:2402.01306, ``lambda_y - v(x, y)`` with ``lambda_y`` the row's
        weight, which is TRL's ``KTOTrainer``.
    """
    margin = beta * (logps - ref_logps - reference_point)
    # sigmoid(-m) equals 1 - sigmoid(m), without the loss of digits near 1
    return torch.where(
        desirable,
        desirable_weight * torch.sigmoid(-margin),
        undesirable_weight * torch.sigmoid(margin),
    )


def kto_reference_point(mismatched_logps: Tensor, mismatched_ref_logps: Tensor) -> Tensor:
    """Estimate KTO's ``z0``, the divergence of the policy from the reference.

    The estimate is ``max(0, mean(logps - ref_logps))`` over pairs of a prompt with a response to
    another one. It has no gradient.

    Args:
        mismatched_logps: Log-probabilities of the pairs by the policy, shape ``(R,)``.
        mismatched_ref_logps: Log-probabilities of the pairs by the reference, shape ``(R,)``.

    Returns:
        ``z0`` in nats, shape ``()``.

    Source:
        Ethayarajh et al., arXiv:2402.01306, the biased but convenient estimate of ``z0``.
    """
    return (mismatched_logps - mismatched_ref_logps).mean().clamp(min=0).detach()


def sft_loss(logps: Tensor) -> Tensor:
    """Supervised fine-tuning: the negative log-likelihood in nats, shape ``(R,)``."""
    return -logps
