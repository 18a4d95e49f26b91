"""Forward passes over prompt groups: how the logits of response tokens are computed.

An encoder reads each prompt once and its decoder rows attend to it. A decoder has three routes that
give the same numbers: ``off``, a row ``[prompt | response]`` per response; ``tree``, one row
``[prompt | y_1 | ... | y_n]`` in which responses do not see each other and positions restart after
the prompt; ``cache``, the prompts first, then the responses over the prompts' keys and values.

Shapes: P prompts, R rows (responses), L tokens of the longest, T response tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rpo_pipeline.data.groups import GroupBatch

Route = Literal["off", "tree", "cache"]


def encoder_decoder_logits(model: PreTrainedModel, batch: GroupBatch) -> Tensor:
    """Logits at the response tokens, each prompt encoded once; shape ``(T, V)``, row by row."""
    encoded = model.get_encoder()(input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask)
    start = torch.full_like(batch.response_ids[:, :1], model.config.decoder_start_token_id)
    with _head_reads(model, batch.loss_mask):
        logits: Tensor = model(
            encoder_outputs=BaseModelOutput(encoded.last_hidden_state[batch.prompt_index]),
            attention_mask=batch.prompt_mask[batch.prompt_index],
            decoder_input_ids=torch.cat([start, batch.response_ids[:, :-1]], dim=1),
            use_cache=False,
        ).logits
    return logits


def decoder_logits(model: PreTrainedModel, batch: GroupBatch, route: Route) -> Tensor:
    """Logits at the response tokens by one route; shape ``(T, V)``, row by row."""
    return _ROUTES[route](model, batch)


def _rowwise(model: PreTrainedModel, batch: GroupBatch) -> Tensor:
    prompts, prompt_mask = _pad_left(batch.prompt_ids, batch.prompt_mask)
    input_ids = torch.cat([prompts[batch.prompt_index], batch.response_ids], dim=1)
    mask = torch.cat([prompt_mask[batch.prompt_index], batch.loss_mask.long()], dim=1)
    # The token at t is predicted at t - 1: the scored positions start at the prompt's last token.
    scored = torch.zeros_like(input_ids, dtype=torch.bool)
    first = prompts.shape[1] - 1
    scored[:, first : first + batch.loss_mask.shape[1]] = batch.loss_mask
    with _head_reads(model, scored):
        logits: Tensor = model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=False,
        ).logits
    return logits


def _tree(model: PreTrainedModel, batch: GroupBatch) -> Tensor:
    prompt_lengths = batch.prompt_mask.sum(dim=1)
    lengths = batch.num_tokens
    # Column at which each response starts: after its prompt and its elder siblings.
    before = lengths.cumsum(0) - lengths
    first_row = torch.searchsorted(batch.prompt_index, torch.arange(len(prompt_lengths)))
    starts = prompt_lengths[batch.prompt_index] + before - before[first_row][batch.prompt_index]

    row = torch.arange(len(lengths)).repeat_interleave(lengths)
    step = torch.arange(len(row)) - before[row]  # place of each token in its response
    group, column = batch.prompt_index[row], starts[row] + step
    shape = (len(prompt_lengths), int((starts + lengths).max()))
    width = batch.prompt_ids.shape[1]

    input_ids = torch.zeros(shape, dtype=torch.long)
    input_ids[:, :width] = batch.prompt_ids
    input_ids[group, column] = batch.response_ids[batch.loss_mask]
    positions = torch.arange(shape[1]).repeat(shape[0], 1).clamp(max=width)
    positions[group, column] = prompt_lengths[group] + step
    # Segments: 0 the prompt, 1 + row a response, -1 padding.
    segments = torch.full(shape, -1)
    segments[:, :width][batch.prompt_mask.bool()] = 0
    segments[group, column] = row + 1

    ancestor = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    visible = (ancestor & (segments[:, None, :] >= 0)).tril()
    visible |= torch.eye(shape[1], dtype=torch.bool)  # padding sees itself, or softmax has no value
    source = torch.where(step == 0, prompt_lengths[group] - 1, column - 1)
    with _head_reads(model, (group, source)):
        logits: Tensor = model(
            input_ids=input_ids,
            attention_mask=_attention_mask(model, visible[:, None]),
            position_ids=positions,
            use_cache=False,
        ).logits
    return logits


def _cache(model: PreTrainedModel, batch: GroupBatch) -> Tensor:
    """The prompt's last token goes with the responses: it predicts their first tokens."""
    prompts, prompt_mask = _pad_left(batch.prompt_ids, batch.prompt_mask)
    if prompts.shape[1] == 1:  # nothing comes before the last token
        return _rowwise(model, batch)
    cache = DynamicCache(config=model.config)
    with _head_reads(model, torch.zeros_like(prompts[:, :-1], dtype=torch.bool)):
        model(
            input_ids=prompts[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=_positions(prompt_mask[:, :-1]),
            past_key_values=cache,
            use_cache=True,
        )
    if cache.get_seq_length() != prompts.shape[1] - 1:
        raise RuntimeError(
            f"the key-value cache holds {cache.get_seq_length()} of {prompts.shape[1] - 1} prompt "
            "tokens: gradient checkpointing empties it"
        )
    cache.batch_select_indices(batch.prompt_index)
    last = prompts[batch.prompt_index, -1:]
    suffix = torch.cat([last, batch.response_ids[:, :-1]], dim=1)
    mask = torch.cat([prompt_mask[batch.prompt_index], batch.loss_mask[:, :-1].long()], dim=1)
    with _head_reads(model, batch.loss_mask):
        logits: Tensor = model(
            input_ids=suffix,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -suffix.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).logits
    return logits


_ROUTES: dict[Route, Callable[[PreTrainedModel, GroupBatch], Tensor]] = {
    "off": _rowwise,
    "tree": _tree,
    "cache": _cache,
}


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _attention_mask(model: PreTrainedModel, visible: Tensor) -> Tensor:
    """A 4-D mask as the model's attention takes it."""
    if model.config._attn_implementation == "sdpa":
        return visible
    zeros = torch.zeros(visible.shape, dtype=model.dtype)
    return zeros.masked_fill(~visible, torch.finfo(model.dtype).min)


def _pad_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move right padding to the left; shapes ``(P, L)`` stay."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


@contextmanager
def _head_reads(
    model: PreTrainedModel, positions: Tensor | tuple[Tensor, Tensor]
) -> Iterator[None]:
    """Let the output head see only some positions, so that logits have shape ``(T, V)``.

    A hook on the head, rather than a call to it, keeps whatever a model does between its last
    layer and its logits (T5 scales the one, Gemma caps the other).
    """

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][positions],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
