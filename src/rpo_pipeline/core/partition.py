"""Partition estimates of Reward Partition Optimization (RPO).

``log_z(x)`` is the log-partition of a prompt, ``log E_{y ~ pi_ref}[exp(r(x, y) / tau)]``, estimated
from its responses.

Shapes: N rows (one response each), G prompts. Log-probabilities and log_z are in nats, rewards and
tau in units of the normalised reward. Everything is float64 and in log space.

Source: Faye et al., arXiv:2506.13702; docs/method.md gives each equation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rpo_pipeline.core.segments import leave_one_out_logsumexp, segment_logsumexp, segment_sum

MIN_ROWS = 40
"""Smallest number of train rows, of prompts with several, for a check of outliers."""
FAR = 2.0
"""Largest deviation in the spread, as a multiple of the 99 % quantile. Of normally distributed
rewards, one in 600,000 exceeds it."""


@dataclass(frozen=True)
class Prior:
    """Prior for prompts with few responses: the spread of the train rewards, not their level."""

    strength: float
    """Number of responses that the prior counts for, ``k``."""
    mean: float
    """Mean reward of the train rows."""
    level_strength: float
    """Number of responses that the train mean counts for, ``k_b``: within- over between-prompt
    variance."""
    log_spread: float
    """``log C = log E[exp((r - mean_x(r)) sqrt(n / (n - 1)) / tau)]``, in nats, less outliers."""


@dataclass(frozen=True)
class Partition:
    """Estimate of every prompt with its errors; each shape ``(G,)`` but the last."""

    log_z: Tensor
    """Log-partition in nats."""
    log_z_se: Tensor
    """Jackknife standard error; NaN for a prompt with one response and no prior."""
    log_z_bias: Tensor
    """Jackknife bias; NaN for a prompt with one response."""
    ess: Tensor
    """Effective sample size of the terms ``exp(w + r / tau)``, 1 to n."""
    ess_weights: Tensor
    """Effective sample size of the weights alone, 1 to n."""
    log_z_without: Tensor
    """log_z of the prompt without this row, shape ``(N,)``; NaN if it is the only one."""


def behaviour_weights(
    ref_logps: Tensor,
    behaviour_logps: Tensor,
    group: Tensor,
    num_groups: int,
    *,
    alpha: float,
    clip: float,
) -> Tensor:
    """Compute importance weights of responses that another policy wrote.

    ``w_i = clip(alpha (ref_logps_i - behaviour_logps_i), +-c around the prompt's mean)``.

    Args:
        ref_logps: Log-probability of each response by the reference, shape ``(N,)``.
        behaviour_logps: Log-probability by the policy that wrote the response, shape ``(N,)``; NaN
            if the log lacks it.
        group: Prompt of each row, shape ``(N,)``.
        num_groups: Number of prompts G.
        alpha: Factor of the weights, from 0 (equal weights) to 1.
        clip: Largest distance c from the prompt's mean.

    Returns:
        Log-weights, shape ``(N,)``; NaN for a whole prompt if one of its rows lacks
        behaviour_logps.
    """
    weights = alpha * (ref_logps - behaviour_logps)
    n = segment_sum(torch.ones_like(weights), group, num_groups)
    centre = (segment_sum(weights, group, num_groups) / n)[group]
    return centre + (weights - centre).clamp(-clip, clip)


def fit_prior(
    rewards: Tensor, group: Tensor, num_groups: int, *, tau: float, strength: float
) -> Prior:
    """Fit the prior for prompts with few responses on the train rows.

    If ``exp(r / tau)`` itself were pooled, the prompts with the highest rewards would dominate. So
    each prompt keeps its own level, and only the spread around it is pooled.

    Args:
        rewards: Rewards of the train rows, shape ``(N,)``.
        group: Prompt of each row, shape ``(N,)``.
        num_groups: Number of prompts G.
        tau: Temperature, ``> 0``.
        strength: Number of responses that the prior counts for, ``> 0``.

    Returns:
        The prior; its spread is 0 if no prompt has two responses.
    """
    n = segment_sum(torch.ones_like(rewards), group, num_groups)
    means = segment_sum(rewards, group, num_groups) / n
    deviations = rewards - means[group]
    several = n[group] >= 2
    within = deviations.square().sum() / (n - 1).sum().clamp(min=1)
    between = means.var() - (within / n).mean() if num_groups > 1 else within.new_zeros(())
    spread = _clip_outliers(deviations[several] * (n / (n - 1)).sqrt()[group][several]) / tau
    return Prior(
        strength=strength,
        mean=float(rewards.mean()),
        level_strength=float(within / between.clamp(min=1e-6 * float(within) + 1e-12)),
        log_spread=float(_logmeanexp(spread)) if len(spread) else 0.0,
    )


def _clip_outliers(deviations: Tensor) -> Tensor:
    """Clip large deviations, because one outlier could dominate the mean of exponentials.

    Nothing is clipped if fewer than one in a hundred rewards is above the mean of its prompt.
    """
    if len(deviations) < MIN_ROWS:
        return deviations
    high = deviations.sort().values[int(0.99 * (len(deviations) - 1))]
    return deviations.clamp(max=FAR * float(high)) if high > 0 else deviations


def estimate_partition(
    rewards: Tensor,
    weights: Tensor,
    group: Tensor,
    num_groups: int,
    *,
    tau: float,
    normalised: bool = True,
    prior: Prior | None = None,
) -> Partition:
    """Estimate ``log_z`` of every prompt, with its health.

    ``normalised``: ``logsumexp_i(w_i + r_i / tau) - logsumexp_i(w_i)``, which is ``monte_carlo``
    for ``w = 0``; otherwise the first term alone (``reference_weighted``).

    Args:
        rewards: Rewards of the rows, shape ``(N,)``.
        weights: Log-weights ``w``, shape ``(N,)``.
        group: Prompt of each row, each prompt at least once, shape ``(N,)``.
        num_groups: Number of prompts G.
        tau: Temperature; larger stays nearer the reference.
        normalised: Whether the weights are normalised per prompt.
        prior: Prior of a normalised estimator.

    Returns:
        ``log_z`` with its errors.

    Raises:
        ValueError: If ``tau`` is not positive, or the estimator with a prior is not normalised.
    """
    if tau <= 0:
        raise ValueError(f"tau must be > 0, got {tau}")
    if prior is not None and not normalised:
        raise ValueError("a prior needs a normalised estimator")
    terms = weights + rewards / tau
    n = segment_sum(torch.ones_like(rewards), group, num_groups)
    total = segment_sum(rewards, group, num_groups)
    log_mean, mean_without = _log_means(terms, weights, group, num_groups, normalised=normalised)
    log_z = _with_prior(log_mean, n, total, tau, prior)
    without = _with_prior(mean_without, n[group] - 1, total[group] - rewards, tau, prior)
    se, bias = _jackknife(log_z, without, n, group, strength=prior.strength if prior else 0.0)
    return Partition(
        log_z=log_z,
        log_z_se=se,
        log_z_bias=bias,
        ess=effective_size(terms, group, num_groups),
        ess_weights=effective_size(weights, group, num_groups),
        log_z_without=without.masked_fill(~torch.isfinite(without), torch.nan),
    )


def partition_of_levels(levels: Tensor, deviations: Tensor, *, tau: float) -> Partition:
    """Estimate ``log_z`` of prompts with one response from the rewards of other prompts.

    ``log_z = level / tau + log mean exp(deviation / tau)``. The reward of the prompt's own response
    is one of the deviations and no more: without prompts of two responses, nothing tells whether a
    high reward is due to the prompt or to the response, and ``log_z = r / tau`` would leave no
    target.

    Args:
        levels: Expected reward of each prompt, which its own response has not told, shape ``(G,)``.
        deviations: Rewards of the train rows less the levels of their prompts, shape ``(N,)``.
        tau: Temperature.

    Returns:
        ``log_z`` of each prompt; its errors are unknown. One row per prompt.
    """
    unknown = torch.full_like(levels, torch.nan)
    log_z = levels / tau + _logmeanexp(_clip_outliers(deviations) / tau)
    ones = torch.ones_like(levels)
    return Partition(
        log_z=log_z,
        log_z_se=unknown,
        log_z_bias=unknown,
        ess=ones,
        ess_weights=ones,
        log_z_without=log_z,
    )


def calibration(rewards: Tensor, log_z_without: Tensor, *, tau: float) -> float:
    """Compute the leave-one-out calibration ``log mean_i exp(r_i / tau - log_z_without_i)``.

    Args:
        rewards: Rewards of prompts with at least two responses, shape ``(N,)``.
        log_z_without: log_z of each row's prompt without the row, shape ``(N,)``.
        tau: Temperature.

    Returns:
        Calibration in nats, 0 for a right estimate; NaN without rows.
    """
    return float(_logmeanexp(rewards / tau - log_z_without)) if len(rewards) else float("nan")


def _log_means(
    terms: Tensor, weights: Tensor, group: Tensor, num_groups: int, *, normalised: bool
) -> tuple[Tensor, Tensor]:
    """Compute log_z without a prior: of each prompt, and of each row's prompt without the row."""
    log_mean = segment_logsumexp(terms, group, num_groups)
    without = leave_one_out_logsumexp(terms, group, num_groups)
    if not normalised:
        return log_mean, without
    return (
        log_mean - segment_logsumexp(weights, group, num_groups),
        without - leave_one_out_logsumexp(weights, group, num_groups),
    )


def _with_prior(
    log_mean: Tensor, n: Tensor, total: Tensor, tau: float, prior: Prior | None
) -> Tensor:
    """Add the k responses of a prior, which all have the reward that the prompt is expected to get.

    With ``v = n softmax(w)``: ``logaddexp(logsumexp_i(log v_i + r_i / tau), log k + m_x / tau +
    log C) - log(n + k)``, where ``m_x`` is the prompt's mean reward shrunk towards the train mean.
    """
    if prior is None:
        return log_mean
    level = (total + prior.level_strength * prior.mean) / (n + prior.level_strength)
    borrowed = math.log(prior.strength) + level / tau + prior.log_spread
    own = torch.where(n > 0, n.log() + log_mean, -torch.inf)
    return torch.logaddexp(own, borrowed) - (n + prior.strength).log()


def _jackknife(
    log_z: Tensor, without: Tensor, n: Tensor, group: Tensor, *, strength: float
) -> tuple[Tensor, Tensor]:
    """Compute the jackknife standard error and bias.

    Leaving out one of a prior's k responses does not change log_z, so they count in ``n + k`` and
    the centre is log_z itself. In simulation this error is right also at n = 1.
    """
    num_groups = len(log_z)
    mean = segment_sum(without, group, num_groups) / n
    centre = log_z if strength else mean
    squares = segment_sum((without - centre[group]).square(), group, num_groups)
    se = ((n + strength - 1) / (n + strength) * squares).sqrt()
    bias = (n - 1) * (mean - log_z)
    single = n < 2
    return (
        se if strength else se.masked_fill(single, torch.nan),
        bias.masked_fill(single, torch.nan),
    )


def effective_size(log_values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Compute Kish's effective sample size ``(sum t)^2 / sum t^2`` of ``t = exp(log_values)``."""
    first = segment_logsumexp(log_values, group, num_groups)
    return (2 * first - segment_logsumexp(2 * log_values, group, num_groups)).exp()


def _logmeanexp(values: Tensor) -> Tensor:
    return values.logsumexp(0) - math.log(len(values))
