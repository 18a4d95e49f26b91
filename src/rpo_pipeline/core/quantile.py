"""Quantile rewards: where a reward stands among those of responses sampled from the reference.

Shapes: G prompts, k samples of each, M values to place. Quantiles are 0 to 1, tau in their units.

Source: QRPO, arXiv:2507.08068. Deviations: mid-ranks, and log_z on the grid that k samples allow.
"""

import math

import torch
from torch import Tensor


def quantiles(values: Tensor, samples: Tensor) -> Tensor:
    """Mid-rank quantile: share of the samples that are below, and half of those that are equal.

    Args:
        values: What to place, shape ``(G, M)``.
        samples: In rising order, shape ``(G, k)``.

    Returns:
        0 to 1 in steps of ``1 / 2k``, shape ``(G, M)``.
    """
    values = values.contiguous()
    below = torch.searchsorted(samples, values, right=False)
    not_above = torch.searchsorted(samples, values, right=True)
    return (below + not_above).to(samples.dtype) / (2 * samples.shape[1])


def quantile_log_z(samples: Tensor, *, tau: float) -> Tensor:
    """``log E[exp(q / tau)]`` of the quantile q that a fresh response of the reference gets.

    It is equally likely to fall into each of the k + 1 gaps between the sorted samples: ``q = j /
    k``, or the mid-rank where the two samples beside the gap are equal. For a continuous reward and
    many samples this is ``1 / tau + log tau + log1p(-exp(-1 / tau))``.

    Args:
        samples: Rewards of the samples, in rising order, shape ``(G, k)``.
        tau: Temperature, in quantiles; larger stays nearer the reference.

    Returns:
        In nats, shape ``(G,)``.
    """
    num_samples = samples.shape[1]
    steps = torch.arange(num_samples + 1, dtype=samples.dtype) / num_samples
    grid = steps.repeat(len(samples), 1)
    tied = samples[:, 1:] == samples[:, :-1]
    grid[:, 1:-1] = torch.where(tied, quantiles(samples, samples)[:, 1:], grid[:, 1:-1])
    return (grid / tau).logsumexp(dim=1) - math.log(num_samples + 1)
