"""A lower bound of a mean that also allows for losses too rare to be seen.

A bootstrap knows only what was drawn: where 1 prompt of 50 loses much, most sets of 40 hold no such
prompt, and an interval from them says that nothing is ever lost. So one more prompt is supposed, on
which the worst happens that can, and the prompts share the probability at random, uniformly over
all shares. The bound is the number that the mean falls below with probability ``error``.

A saddlepoint approximation of a weighted sum of exponential variables gives that probability to
about two parts in a hundred, in the far tail too. For values of 0 and 1 the bound is that of
Clopper and Pearson.

Shapes: ... any, P prompts.

Source:
    Gaffke (2005), Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable; Learned-Miller and Thomas, arXiv:1905.06208 (that its level holds is a
    conjecture which no example contradicts); Lugannani and Rice (1980) for the saddlepoint.
"""

import torch
from torch import Tensor

STEPS = 60
"""Halvings of an interval: more than a float64 can tell apart."""
NEAR_THE_MEAN = 1e-4
"""Standard deviations from the mean within which the saddlepoint formula is 0 / 0."""


def lower_bound(values: Tensor, worst: Tensor, *, error: float) -> Tensor:
    """Bound the mean of prompts from below.

    Args:
        values: A number of each prompt, float64, shape ``(..., P)``, P at least 1.
        worst: Smallest number that any prompt could have; where a value lies below it, that one is
            it. Shape ``(...)``.
        error: Probability that the bound lies above the true mean, below 1/2.

    Returns:
        The bound, shape ``(...)``: between the worst and the mean.
    """
    table = _with_worst(values, worst)
    worst = table[..., -1]
    low, high = worst.clone(), table.mean(dim=-1)
    for _ in range(STEPS):
        middle = (low + high) / 2
        passes = _probability_below(table, middle) < error
        low, high = torch.where(passes, middle, low), torch.where(passes, high, middle)
    return low


def is_above(values: Tensor, worst: Tensor, threshold: float, *, error: float) -> Tensor:
    """Whether ``lower_bound`` is above a threshold, for many tables in much less time."""
    table = _with_worst(values, worst)
    at = torch.full_like(worst, threshold)
    inside = (table[..., -1] < threshold) & (threshold < table.mean(dim=-1))
    return (table[..., -1] > threshold) | (inside & (_probability_below(table, at) < error))


def _with_worst(values: Tensor, worst: Tensor) -> Tensor:
    worst = torch.minimum(worst, values.amin(dim=-1))
    return torch.cat([values, worst[..., None]], dim=-1)


def _probability_below(table: Tensor, at: Tensor) -> Tensor:
    """Probability of a mean below ``at``, for ``at`` between the least number and the mean."""
    c = table - at[..., None]
    # The derivative of the cumulant generating function rises from -inf to inf between the poles.
    low = 1 / c.amin(dim=-1).clamp(max=-torch.finfo(c.dtype).tiny)
    high = torch.zeros_like(low)
    for _ in range(STEPS):
        s = (low + high) / 2
        is_past = (c / (1 - s[..., None] * c)).sum(dim=-1) > 0
        low, high = torch.where(is_past, low, s), torch.where(is_past, s, high)
    s = (low + high) / 2
    tilted = 1 - s[..., None] * c
    w = -torch.sqrt((2 * torch.log(tilted).sum(dim=-1)).clamp(min=0))
    v = s * torch.sqrt((c / tilted).square().sum(dim=-1))
    density = torch.exp(-w.square() / 2) / (2 * torch.pi) ** 0.5
    share = torch.special.ndtr(w) + density * (1 / w - 1 / v)
    return torch.where(w > -NEAR_THE_MEAN, torch.full_like(share, 0.5), share)
