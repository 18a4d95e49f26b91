"""Log-probabilities of responses, in nats.

Shapes: T scored tokens of a batch (flattened), R rows (responses), H hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK_BYTES = 32 * 2**20
"""Size of the logits that are computed at once, in float32."""
KEPT_BYTES = 128 * 2**20
"""Size of the logits of a batch kept for its backward pass, which computes the others again."""


def token_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the log-probability of each scored token in float32.

    Args:
        logits: Unnormalised scores at the scored positions only, shape ``(T, V)``.
        labels: The tokens that were generated there, int64, shape ``(T,)``.

    Returns:
        ``log pi(token | prefix)``, float32, shape ``(T,)``, each ``<= 0``.
    """
    return -functional.cross_entropy(logits.float(), labels, reduction="none")


def projected_logps(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    kept_bytes: int = KEPT_BYTES,
) -> Tensor:
    """Compute ``token_logps(linear(states, weight, bias), labels)`` in chunks of tokens.

    The logits of all tokens never exist together. Under autocast the products are in its precision;
    the normaliser, and the sums over chunks, are in float32.

    Args:
        states: Inputs of the vocabulary head at the scored positions, shape ``(T, H)``.
        weight: Weight of the head, shape ``(V, H)``; no gradient is computed for a frozen one.
        bias: Bias of the head, shape ``(V,)``, or none.
        labels: The tokens that were generated there, int64, shape ``(T,)``.
        kept_bytes: Size of the logits kept for the backward pass, which saves computing them again.

    Returns:
        ``log pi(token | prefix)``, float32, shape ``(T,)``, each ``<= 0``.
    """
    device = states.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else states.dtype
    if not torch.is_grad_enabled():
        kept_bytes = 0
    logps: Tensor = _ProjectedLogps.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, labels, dtype, kept_bytes
    )
    return logps


class _ProjectedLogps(torch.autograd.Function):
    """Keeps the normaliser of each token, and the logits of the first tokens, for the gradient.

    With ``p = softmax(logits)`` and ``g`` the gradient of a token's logp, the gradient of its
    logits is ``g (onehot(label) - p)``.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch adds attributes to it)
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        dtype: torch.dtype,
        kept_bytes: int,
    ) -> Tensor:
        ctx.dtype, ctx.kept = dtype, {}
        head = _cast(dtype, weight, bias)
        logps = torch.empty(len(labels), device=states.device)
        normaliser = torch.empty_like(logps)
        for part in _chunks(len(labels), len(weight)):
            logits = functional.linear(states[part].to(dtype), *head)
            kept_bytes -= logits.nbytes
            if kept_bytes >= 0:
                ctx.kept[part.start] = logits
            logps[part] = token_logps(logits, labels[part])
            normaliser[part] = _at(logits, labels[part]).float() - logps[part]
        ctx.save_for_backward(states, weight, bias, labels, normaliser)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        states, weight, bias, labels, normaliser = ctx.saved_tensors
        head = _cast(ctx.dtype, weight, bias)
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias else None
        for part in _chunks(len(labels), len(weight)):
            read = states[part].to(ctx.dtype)
            logits = ctx.kept.pop(part.start, None)
            if logits is None:
                logits = functional.linear(read, *head)
            slope = logits.float().sub_(normaliser[part, None]).exp_().mul_(-grad[part, None])
            slope.scatter_add_(1, labels[part, None], grad[part, None])
            if grad_bias is not None:
                grad_bias += slope.sum(dim=0)
            slope = slope.to(ctx.dtype)
            grad_states[part] = slope @ head[0]
            if grad_weight is not None:
                _add_product(grad_weight, slope.T, read)
        gradients = (grad_states, grad_weight, grad_bias)
        inputs = (states, weight, bias)
        cast = [g if g is None else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True)]
        return (*cast, None, None, None)


def _chunks(num_tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(start, start + size) for start in range(0, num_tokens, size)]


def _cast(dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product to a float32 sum, in place if both have one precision."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def sum_by_row(values: Tensor, row_index: Tensor, num_rows: int) -> Tensor:
    """Sum values over the tokens of each row.

    Args:
        values: One number per token, shape ``(T,)``.
        row_index: Row of each token, ``0..num_rows-1``, int64, shape ``(T,)``.
        num_rows: Number of rows R; a row without tokens sums to 0.

    Returns:
        Sums, same dtype as ``values``, shape ``(R,)``.
    """
    return torch.zeros(num_rows, dtype=values.dtype, device=values.device).index_add(
        0, row_index, values
    )
