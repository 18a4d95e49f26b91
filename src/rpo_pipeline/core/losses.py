"""Objectives: pure functions from log-probabilities to one loss per row.

Shapes: R rows (responses). Log-probabilities are in nats, summed over the response or averaged over
its tokens; all inputs of a call share one reduction.

Some losses join the responses of a prompt. All that a row then needs of the others is one number
without gradient, so the rows of a prompt may be in several micro-batches.

QRPO (arXiv:2507.08068) has no function of its own: it is ``rpo_loss`` on targets of quantiles.
REBEL (arXiv:2404.16767) has none either: it is ``weighted_rpo_loss`` with an infinite ``rho``.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def rpo_loss(
    logps: Tensor, ref_logps: Tensor, targets: Tensor, *, huber_delta: Tensor | float = math.inf
) -> Tensor:
    """Reward Partition Optimization: regress the log-ratio on the reward.

    ``1/2 e^2`` of the distance ``e = |logps - ref_logps - target|`` with ``target = r / tau -
    log_z``. Beyond a ``huber_delta`` d it goes on as the line ``d (e - d / 2)``, whose gradient is
    at most d, so that a response far below its prompt pulls no more than one clearly below.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        targets: Targets in nats, shape ``(R,)``.
        huber_delta: d, in nats, ``> 0``, a number or of shape ``(R,)``; infinite for the square.

    Returns:
        Loss of each row in nats^2, shape ``(R,)``.

    Source:
        Faye et al., arXiv:2506.13702, the RPO loss, in units of the log-ratio; Huber, Robust
        estimation of a location parameter, 1964, for the line.
    """
    distance = (logps - ref_logps - targets).abs()
    near = distance.clamp(max=huber_delta)
    return near * (distance - 0.5 * near)


def weighted_rpo_loss(
    logps: Tensor,
    ref_logps: Tensor,
    targets: Tensor,
    mean_residuals: Tensor,
    *,
    weight: Tensor,
    level: Tensor,
    huber_delta: Tensor | float = math.inf,
) -> Tensor:
    """RPO where log_z has an error: generalised least squares over the responses of a prompt.

    The residuals ``e_i = logps - ref_logps - target`` of a prompt share the error of its log_z. If
    that has ``rho`` times the variance of a row and the mean ``b``, the loss of the prompt is ``1/2
    sum_i (e_i - mean e)^2 + 1/2 n / (1 + n rho) (mean e - b)^2``. For ``rho = 0`` and ``b = 0``
    this is ``rpo_loss``; for an infinite ``rho`` only differences within the prompt count, in which
    log_z cancels (REBEL). The weight of the level against the mean of the prompt is ``1 / (1 + n
    rho)``.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        targets: Targets in nats, shape ``(R,)``.
        mean_residuals: ``mean e`` over all responses of each row's prompt, in nats, without
            gradient, shape ``(R,)``.
        weight: Weight of the level, from 0 to 1, shape ``(R,)``.
        level: Mean ``b`` of the errors over prompts, in nats, shape ``()``.
        huber_delta: That of ``rpo_loss``, for the distance of a row from the level of its prompt.

    Returns:
        Loss of each row in nats^2, shape ``(R,)``. With an infinite huber_delta, its sum over a
        prompt is the loss above, and has the gradient of the loss above by each log-probability,
        ``e_i - (n rho mean e + b) / (1 + n rho)``.
    """
    distance = mean_residuals - level
    intercepts = mean_residuals - weight * distance
    return (
        rpo_loss(logps, ref_logps, targets + intercepts, huber_delta=huber_delta)
        + 0.5 * weight * (1 - weight) * distance.square()
    )


def tgo_loss(
    logps: Tensor, ref_logps: Tensor, rewards: Tensor, *, threshold: float, beta: float
) -> Tensor:
    """Threshold-guided optimization: a logistic loss on whether the reward exceeds a threshold.

    ``-w [l log sigmoid(beta log_ratio) + (1 - l) log sigmoid(-beta log_ratio)]`` with ``l = 1`` if
    ``r > m``, else 0, and ``w = 1 + |r - m|``; the sum over rows is divided by the sum of ``w``.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        rewards: Normalised rewards r, shape ``(R,)``.
        threshold: Reward m, the median of train.
        beta: Sharpness, per nat, ``> 0``.

    Returns:
        Loss of each row, shape ``(R,)``.

    Source:
        Bai et al., arXiv:2605.04653 (for images), whose threshold comes from the scores too.
    """
    log_odds = beta * (logps - ref_logps)
    above = rewards - threshold
    return -(1 + above.abs()) * logsigmoid(torch.where(above > 0, log_odds, -log_odds))


def nca_loss(logps: Tensor, ref_logps: Tensor, shares: Tensor, *, beta: float) -> Tensor:
    """Noise contrastive alignment: each response against the reference, by its reward's share.

    ``-[s log sigmoid(beta log_ratio) + log sigmoid(-beta log_ratio)]`` with ``s = n softmax(r /
    alpha)`` over the n responses of the prompt.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        shares: Shares ``s``, whose mean over a prompt is 1, shape ``(R,)``.
        beta: Sharpness, per nat, ``> 0``.

    Returns:
        Loss of each row, shape ``(R,)``.

    Source:
        Chen et al., arXiv:2402.05369, NCA, times the number of responses.
    """
    log_odds = beta * (logps - ref_logps)
    return -shares * logsigmoid(log_odds) - logsigmoid(-log_odds)


def infonca_loss(
    logps: Tensor, ref_logps: Tensor, shares: Tensor, normalisers: Tensor, *, beta: float
) -> Tensor:
    """InfoNCA: cross-entropy from the rewards of a prompt to the log-ratios of its responses.

    ``-s log softmax(beta log_ratio)`` over the responses of the prompt, with the ``s`` of
    ``nca_loss``.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        ref_logps: Log-probabilities by the reference, shape ``(R,)``.
        shares: Shares ``s``, whose mean over a prompt is 1, shape ``(R,)``.
        normalisers: ``log mean_i exp(beta log_ratio_i)`` over all responses of each row's prompt,
            without gradient, shape ``(R,)``.
        beta: Sharpness, per nat, ``> 0``.

    Returns:
        Loss of each row less ``s log n``, shape ``(R,)``. Its sum over a prompt has the gradient
        of the loss above.

    Source:
        Chen et al., arXiv:2402.05369, InfoNCA, times the number of responses.
    """
    log_odds = beta * (logps - ref_logps) - normalisers
    through_normaliser = log_odds.exp() - log_odds.exp().detach()  # a gradient, but no value
    return through_normaliser - shares * log_odds


def awr_loss(logps: Tensor, weights: Tensor) -> Tensor:
    """Advantage-weighted regression: the negative log-likelihood, times a weight of the reward.

    Args:
        logps: Log-probabilities by the policy, with gradients, shape ``(R,)``.
        weights: ``exp(r / tau)`` over its mean, of the prompt or of train, shape ``(R,)``.

    Returns:
        Loss of each row in nats, shape ``(R,)``.

    Source:
        Peng et al., arXiv:1910.00177, with ``tau log mean exp(r / tau)`` as the value.
    """
    return weights * sft_loss(logps)


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
