"""Log-probabilities of responses, in nats.

Shapes: T scored tokens of a batch (flattened), R rows (responses), V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional


def token_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each scored token, always computed in float32.

    Args:
        logits: Unnormalised scores at the scored positions only, shape ``(T, V)``.
        labels: The tokens that were generated there, int64, shape ``(T,)``.

    Returns:
        ``log pi(token | prefix)``, float32, shape ``(T,)``, each ``<= 0``.
    """
    return -functional.cross_entropy(logits.float(), labels, reduction="none")


def sum_by_row(values: Tensor, row_index: Tensor, num_rows: int) -> Tensor:
    """Sum values over the tokens of each row.

    Args:
        values: One number a token, shape ``(T,)``.
        row_index: Row of each token, ``0..num_rows-1``, int64, shape ``(T,)``.
        num_rows: R; a row without tokens sums to 0.

    Returns:
        Sums, same dtype as ``values``, shape ``(R,)``.
    """
    return torch.zeros(num_rows, dtype=values.dtype, device=values.device).index_add(
        0, row_index, values
    )
