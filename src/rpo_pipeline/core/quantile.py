"""Quantile rewards: the rank of a reward among those of responses sampled from the reference.

Shapes: G prompts, k samples of each, M values. Quantiles are 0 to 1, and tau is in their units.

Source: QRPO, arXiv:2507.08068. Deviations: mid-ranks, and log_z on the grid of k samples.
"""

import math

import torch
from torch import Tensor


def quantiles(values: Tensor, samples: Tensor) -> Tensor:
    """Compute mid-rank quantiles: the share of smaller samples and half that of equal ones.

    Args:
        values: Rewards, shape ``(G, M)``.
        samples: Rewards of the samples in increasing order, shape ``(G, k)``.

    Returns:
        Quantiles, 0 to 1 in steps of ``1 / 2k``, shape ``(G, M)``.
    """
    values = values.contiguous()
    below = torch.searchsorted(samples, values, right=False)
    not_above = torch.searchsorted(samples, values, right=True)
    return (below + not_above).to(samples.dtype) / (2 * samples.shape[1])


def quantile_log_z(samples: Tensor, *, tau: float) -> Tensor:
    """Compute ``log E[exp(q / tau)]`` over the quantile q of a new response of the reference.

    Its reward falls with equal probability into each of the k + 1 gaps between the sorted samples:
    ``q = j / k``, or the mid-rank if the two samples beside the gap are equal. For a continuous
    reward and many samples the result is ``1 / tau + log tau + log1p(-exp(-1 / tau))``.

    Args:
        samples: Rewards of the samples in increasing order, shape ``(G, k)``.
        tau: Temperature in quantiles; larger stays nearer the reference.

    Returns:
        log_z in nats, shape ``(G,)``.
    """
    num_samples = samples.shape[1]
    steps = torch.arange(num_samples + 1, dtype=samples.dtype) / num_samples
    grid = steps.repeat(len(samples), 1)
    tied = samples[:, 1:] == samples[:, :-1]
    grid[:, 1:-1] = torch.where(tied, quantiles(samples, samples)[:, 1:], grid[:, 1:-1])
    return (grid / tau).logsumexp(dim=1) - math.log(num_samples + 1)
