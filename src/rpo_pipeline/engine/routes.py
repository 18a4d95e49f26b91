"""Runs a model over prompt groups, and returns the states and logits at the response tokens.

Routes through the model give the same numbers. ``off`` is the plain one: for a decoder a row
``[prompt | response]`` per response, for an encoder-decoder each prompt encoded once and its states
handed to every response. ``cache`` computes the prompts first, and the responses over their keys
and values. ``tree`` (decoders) is one row ``[prompt | y_1 | ... | y_n]`` in which responses do not
see each other and positions restart after the prompt.

Shapes: P prompts, R rows (responses), L tokens of the longest, T response tokens, H hidden size,
V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rpo_pipeline.engine.groups import GroupBatch
from rpo_pipeline.engine.passes import (
    Pass,
    head_reads,
    like_length,
    over_cache,
    over_encoder,
    rowwise,
    tree_rows,
)

Route = Literal["off", "tree", "cache"]


@dataclass(frozen=True)
class Reading:
    """Inputs and outputs of the vocabulary head, row by row."""

    states: Tensor
    """States at the response tokens, shape ``(T, H)``."""
    logits: Tensor | None
    """Logits at the response tokens, shape ``(T, V)``, if they were asked for."""
    sample: tuple[Tensor, Tensor]
    """States and logits of one token, shapes ``(1, H)`` and ``(1, V)``."""
    prompts: Tensor | None
    """Encoder states of the prompts, shape ``(P, L, H)``; None without an encoder."""


def read_responses(
    model: PreTrainedModel,
    batch: GroupBatch,
    route: Route,
    *,
    with_logits: bool = True,
    in_one_pass: bool = False,
) -> Reading:
    """Run the model over a batch of groups, and return states and logits at the response tokens.

    Without logits, only those of one token of each pass are computed. In one pass, an
    encoder-decoder's rows are not cut into parts of like length.
    """
    encoded = None
    if model.config.is_encoder_decoder:
        encoded = model.get_encoder()(
            input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask
        ).last_hidden_state
        parts = [list(range(len(batch.rows)))] if in_one_pass else like_length(batch)
        passes = over_encoder(model, batch, encoded, parts, with_cache=route == "cache")
    else:
        passes = _ROUTES[route](model, batch)
    rows, states, logits = [], [], []
    for part in passes:
        with head_reads(model, part.scored, None if with_logits else 1) as seen:
            logits.append(model(**part.inputs).logits)
        states.append(seen[0])
        rows += part.rows
    place = _token_places(batch, rows)
    return Reading(
        states=torch.cat(states)[place],
        logits=torch.cat(logits)[place] if with_logits else None,
        sample=(states[0][:1], logits[0][:1]),
        prompts=encoded,
    )


_ROUTES: dict[Route, Callable[[PreTrainedModel, GroupBatch], Iterator[Pass]]] = {
    "off": rowwise,
    "tree": tree_rows,
    "cache": over_cache,
}


def _token_places(batch: GroupBatch, rows: list[int]) -> Tensor:
    """Return the place of each response token among those of rows in some order."""
    numbers = batch.loss_mask.flatten().cumsum(0).view(batch.loss_mask.shape) - 1
    index = torch.tensor(rows, device=numbers.device)
    return numbers[index][batch.loss_mask[index]].argsort()
