"""Reductions over the rows of each prompt, in log space.

Shapes: N rows (one response each), G prompts. ``group`` names the prompt of each row, int64,
shape ``(N,)``, values ``0..G-1``, in any order.
"""

import torch
from torch import Tensor


def segment_sum(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Sum over the rows of each prompt, shape ``(G,)``."""
    return values.new_zeros(num_groups).index_add(0, group, values)


def segment_logsumexp(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Take ``log sum exp`` over the rows of each prompt, shape ``(G,)``; ``-inf`` without rows."""
    peak = values.new_full((num_groups,), -torch.inf).scatter_reduce(0, group, values, "amax")
    shift = torch.where(torch.isfinite(peak), peak, 0.0)
    return shift + segment_sum((values - shift[group]).exp(), group, num_groups).log()


def leave_one_out_logsumexp(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Take ``log sum exp`` over the other rows of each row's prompt; ``-inf`` if there are none.

    A row's term is subtracted from the sum of its prompt, which is exact unless the term is the
    largest; for the row with the largest term the others are summed again.

    Args:
        values: Values of the rows, shape ``(N,)``.
        group: Prompt of each row, shape ``(N,)``.
        num_groups: Number of prompts.

    Returns:
        One number per row, shape ``(N,)``.
    """
    top = _first_largest(values, group)
    peak = values.new_full((num_groups,), -torch.inf).scatter_reduce(0, group, values, "amax")[
        group
    ]
    terms = (values - peak).exp()
    others = segment_sum(terms, group, num_groups)[group] - terms
    rest = segment_logsumexp(values.masked_fill(top, -torch.inf), group, num_groups)[group]
    return torch.where(top, rest, peak + others.clamp(min=0).log())


def _first_largest(values: Tensor, group: Tensor) -> Tensor:
    """Mark one row with the largest value of each prompt, bool, shape ``(N,)``."""
    order = values.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sorted_group = group[order]
    first = torch.ones_like(sorted_group, dtype=torch.bool)
    first[1:] = sorted_group[1:] != sorted_group[:-1]
    return torch.zeros_like(first).scatter(0, order, first)
