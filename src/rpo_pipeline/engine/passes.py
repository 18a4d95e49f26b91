"""Forward passes over a batch of prompt groups, by the route through the model.

Shapes: P prompts, R rows (responses), L tokens of the longest, T response tokens, H hidden size.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rpo_pipeline.engine.groups import GroupBatch, parts_of_like_length

Positions = Tensor | tuple[Tensor, Tensor]


@dataclass
class EncoderStates(BaseModelOutput):
    """States of prompts, as decoders of any kind take them from an encoder."""

    router_logits: None = None
    """The router's logits of a mixture of experts, which its decoder expects but does not use."""


@dataclass(frozen=True)
class Pass:
    """One forward pass over rows of a batch."""

    rows: list[int]
    """Rows whose response tokens are scored, in this order."""
    inputs: dict[str, Any]
    """Arguments of the model."""
    scored: Positions
    """Positions of the states of their response tokens, row by row."""


def rowwise(model: PreTrainedModel, batch: GroupBatch) -> Iterator[Pass]:
    """Yield one pass over a row ``[prompt | response]`` per response.

    Padding stands behind a row, where no token of a decoder can see it.
    """
    del model
    prompt_lengths = batch.prompt_mask.sum(dim=1)[batch.prompt_index]
    row, step = batch.loss_mask.nonzero(as_tuple=True)
    lengths = prompt_lengths + batch.num_tokens
    columns = torch.arange(int(lengths.max()), device=row.device)
    input_ids = nn.functional.pad(
        batch.prompt_ids[batch.prompt_index], (0, len(columns) - batch.prompt_ids.shape[1])
    )
    input_ids[row, prompt_lengths[row] + step] = batch.response_ids[row, step]
    inputs = {
        "input_ids": input_ids,
        "attention_mask": (columns < lengths[:, None]).long(),
        "position_ids": columns.expand_as(input_ids),
        "use_cache": False,
    }
    # The token at t is predicted at t - 1: the scored positions start at the prompt's last token.
    yield Pass(list(range(len(batch.rows))), inputs, (row, prompt_lengths[row] + step - 1))


def tree_rows(model: PreTrainedModel, batch: GroupBatch) -> Iterator[Pass]:
    """Yield one pass over a row ``[prompt | y_1 | ... | y_n]`` per prompt."""
    device = batch.rows.device
    prompt_lengths = batch.prompt_mask.sum(dim=1)
    lengths = batch.num_tokens
    # Column at which each response starts: after its prompt and its elder siblings.
    before = lengths.cumsum(0) - lengths
    prompts = torch.arange(len(prompt_lengths), device=device)
    first_row = torch.searchsorted(batch.prompt_index, prompts)
    starts = prompt_lengths[batch.prompt_index] + before - before[first_row][batch.prompt_index]

    row = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
    step = torch.arange(len(row), device=device) - before[row]  # place of a token in its response
    group, column = batch.prompt_index[row], starts[row] + step
    shape = (len(prompt_lengths), int((starts + lengths).max()))
    width = batch.prompt_ids.shape[1]

    input_ids = torch.zeros(shape, dtype=torch.long, device=device)
    input_ids[:, :width] = batch.prompt_ids
    input_ids[group, column] = batch.response_ids[batch.loss_mask]
    positions = torch.arange(shape[1], device=device).repeat(shape[0], 1).clamp(max=width)
    positions[group, column] = prompt_lengths[group] + step
    # Segments: 0 the prompt, 1 + row a response, -1 padding.
    segments = torch.full(shape, -1, device=device)
    segments[:, :width][batch.prompt_mask.bool()] = 0
    segments[group, column] = row + 1

    ancestor = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    visible = (ancestor & (segments[:, None, :] >= 0)).tril()
    # Padding sees itself, or softmax has no value.
    visible |= torch.eye(shape[1], dtype=torch.bool, device=device)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": _attention_mask(model, visible[:, None]),
        "position_ids": positions,
        "use_cache": False,
    }
    source = torch.where(step == 0, prompt_lengths[group] - 1, column - 1)
    yield Pass(list(range(len(lengths))), inputs, (group, source))


def over_cache(model: PreTrainedModel, batch: GroupBatch) -> Iterator[Pass]:
    """Yield passes over the responses, whose prompts are computed before the first.

    The last token of a prompt goes with the responses, because it predicts their first tokens.
    """
    prompts, prompt_mask = _pad_left(batch.prompt_ids, batch.prompt_mask)
    if prompts.shape[1] == 1:  # nothing comes before the last token
        yield from rowwise(model, batch)
        return
    cache = DynamicCache(config=model.config)
    with head_reads(model, torch.zeros_like(prompts[:, :-1], dtype=torch.bool), None):
        model(
            input_ids=prompts[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=_positions(prompt_mask[:, :-1]),
            past_key_values=cache,
            use_cache=True,
        )
    cache = _filled(cache, prompts.shape[1] - 1)
    for rows in like_length(batch):
        part = batch.take(rows)
        index = part.prompt_index
        mask = torch.cat([prompt_mask[index], part.loss_mask[:, :-1].long()], dim=1)
        suffix = torch.cat([prompts[index, -1:], part.response_ids[:, :-1]], dim=1)
        inputs = {
            "input_ids": suffix,
            "attention_mask": mask,
            "position_ids": _positions(mask)[:, -suffix.shape[1] :],
            "past_key_values": _rows_of(cache, index),
            "use_cache": True,
        }
        yield Pass(rows, inputs, part.loss_mask)


def over_encoder(
    model: PreTrainedModel,
    batch: GroupBatch,
    encoded: Tensor,
    parts: list[list[int]],
    *,
    with_cache: bool,
) -> Iterator[Pass]:
    """Yield the passes of a decoder over the states of the prompts, shape ``(P, L, H)``.

    With a cache, the keys and values of the states are computed once for all rows.
    """
    start = model.config.decoder_start_token_id
    first = torch.full_like(batch.response_ids[:, :1], start)
    read = torch.cat([first, batch.response_ids[:, :-1]], dim=1)
    if with_cache:
        cache = _cross_cache(model, batch, encoded, start)
        # Looked up together: the gradient of each lookup is as large as the vocabulary.
        embedded = model.get_decoder().get_input_embeddings()(read)
    for rows in parts:
        part = batch.take(rows)
        index, width = part.prompt_index, part.response_ids.shape[1]
        inputs = {"attention_mask": batch.prompt_mask[index], "use_cache": with_cache}
        if with_cache:
            # The states are not read again: one row of them stands for their shape.
            inputs |= {
                "encoder_outputs": EncoderStates(encoded[:1].expand(len(rows), -1, -1)),
                "decoder_inputs_embeds": embedded[rows, :width],
                "past_key_values": EncoderDecoderCache(DynamicCache(), _rows_of(cache, index)),
            }
        else:
            inputs |= {
                "encoder_outputs": EncoderStates(encoded[index]),
                "decoder_input_ids": read[rows, :width],
            }
        yield Pass(rows, inputs, part.loss_mask)


def _cross_cache(
    model: PreTrainedModel, batch: GroupBatch, encoded: Tensor, start: int
) -> DynamicCache:
    """Compute the keys and values of the prompts in every layer of the decoder."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with head_reads(model, torch.zeros_like(batch.prompt_mask[:, :1], dtype=torch.bool), None):
        model(
            encoder_outputs=EncoderStates(encoded),
            attention_mask=batch.prompt_mask,
            decoder_input_ids=torch.full_like(batch.prompt_ids[:, :1], start),
            past_key_values=cache,
            use_cache=True,
        )
    return _filled(cache.cross_attention_cache, encoded.shape[1])


def like_length(batch: GroupBatch) -> list[list[int]]:
    """Cut a batch into parts whose rows have responses of like length."""
    return parts_of_like_length(batch.num_tokens.tolist())


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _attention_mask(model: PreTrainedModel, visible: Tensor) -> Tensor:
    """Return a 4-D mask of the kind that the attention of the model takes."""
    if model.config._attn_implementation == "sdpa":
        return visible
    zeros = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
    return zeros.masked_fill(~visible, torch.finfo(model.dtype).min)


def _pad_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move right padding to the left; shapes ``(P, L)`` stay."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def _filled(cache: DynamicCache, num_tokens: int) -> DynamicCache:
    if cache.get_seq_length() != num_tokens:
        raise RuntimeError(
            f"the key-value cache holds {cache.get_seq_length()} of {num_tokens} prompt tokens: "
            "gradient checkpointing empties it"
        )
    return cache


def _rows_of(cache: DynamicCache, prompt_index: Tensor) -> DynamicCache:
    """Return the keys and values of each row's prompt; the cache itself does not change."""
    rows = copy.copy(cache)
    rows.layers = [copy.copy(layer) for layer in cache.layers]
    rows.batch_select_indices(prompt_index)
    return rows


@contextmanager
def head_reads(
    model: PreTrainedModel, positions: Positions, limit: int | None
) -> Iterator[list[Tensor]]:
    """Pass only some positions to the output head, and keep the states at all of them.

    A hook on the head, rather than a call to the layers below, keeps what a model does in between
    (T5 scales its states). The head gets the first ``limit`` of the states; null for all. The
    yielded list holds the states, shape ``(T, H)``, once the model has been called.
    """
    seen: list[Tensor] = []

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0][positions])
        return (seen[0][:limit],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        handle.remove()
