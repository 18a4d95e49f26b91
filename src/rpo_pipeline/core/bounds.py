"""A lower bound of a mean that also allows for losses too rare to be in the sample.

A bootstrap uses only drawn values: if 1 prompt of 50 loses much, most sets of 40 hold no such
prompt, and an interval from them ignores the loss. So one prompt with the worst possible value is
added, and the prompts get random weights, uniform over the simplex. The bound is the number that
the weighted mean falls below with probability ``error``.

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
"""Number of halvings of the search."""
SEARCHED = (-60.0, 20.0)
"""Searched logarithms of the saddlepoint's distance from the worst number, in ranges of them."""
TINY = 1e-200
"""Smallest range of the numbers, which avoids a division by 0 if they are all equal."""
NEAR_THE_MEAN = 1e-4
"""Standard deviations from the mean within which the saddlepoint formula is 0 / 0."""


def lower_bound(values: Tensor, worst: Tensor, *, error: float) -> Tensor:
    """Bound the mean of prompts from below.

    Args:
        values: One number per prompt, float64, shape ``(..., P)``, P at least 1.
        worst: Smallest number that a prompt could have, shape ``(...)``; a smaller value replaces
            it.
        error: Probability that the bound lies above the true mean, below 1/2.

    Returns:
        The bound, between the worst number and the mean, shape ``(...)``.
    """
    worst = torch.minimum(worst, values.amin(dim=-1))
    gaps = torch.cat([values, worst[..., None]], dim=-1) - worst[..., None]
    near, far = (torch.full_like(worst, end) for end in SEARCHED)
    for _ in range(STEPS):
        middle = (near + far) / 2
        is_below = _saddlepoint(gaps, middle)[1] < error
        near, far = torch.where(is_below, middle, near), torch.where(is_below, far, middle)
    return worst + _saddlepoint(gaps, near)[0]


def _saddlepoint(gaps: Tensor, log_distance: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a mean, less the worst number, and the probability of a smaller one.

    The saddlepoint is given by its distance d from the worst number: the mean is that of the
    numbers with weights ``1 / (gap + d)``, so no search per mean is needed.
    """
    spread = gaps.amax(dim=-1).clamp(min=TINY)
    distance = spread * log_distance.exp()
    shifted = gaps + distance[..., None]
    mean = (gaps / shifted).sum(dim=-1) / (1 / shifted).sum(dim=-1)
    tilted = shifted / (distance + mean)[..., None]
    centred = (gaps - mean[..., None]) / tilted
    w = -torch.sqrt((2 * tilted.log().sum(dim=-1)).clamp(min=0))
    v = -centred.square().sum(dim=-1).sqrt() / (distance + mean)
    density = torch.exp(-w.square() / 2) / (2 * torch.pi) ** 0.5
    below = torch.special.ndtr(w) + density * (1 / w - 1 / v)
    return mean, torch.where(w > -NEAR_THE_MEAN, torch.full_like(below, 0.5), below)
