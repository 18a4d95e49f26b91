"""Effects of a row's length on a model: positions, attention windows, rotary frequencies."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from rpo_pipeline.errors import ModelError
from rpo_pipeline.params import PolicyParams

WINDOW = re.compile(r"(window|window_size|attention_chunk_size|local_attention)$")
"""Names that configurations give to the number of tokens that a layer attends to."""
POSITIONS = re.compile(r"(^|\.)(wpe|\w*pos\w*_emb\w*|embed_pos\w*)$")
"""Names of tables with one entry for each position."""


def attention_window(model: PreTrainedModel) -> float:
    """Return the number of tokens that every layer attends to, by any name in the configuration.

    It is the shortest window or chunk of a layer; infinite without one.
    """
    sizes = [math.inf]
    for name, value in model.config.get_text_config().to_dict().items():
        if WINDOW.search(name):
            sizes += [size for size in _flat(value) if size > 0]
    return min(sizes)


def row_kind(model: PreTrainedModel, num_tokens: int) -> int:
    """Tell which rotary frequencies a model uses for a row; a batch holds rows of one kind.

    transformers chooses them for a whole batch by its longest row. Dynamic scaling has a set for
    each length beyond the trained one, LongRoPE has one set for all of them. The kind is 0 for the
    frequencies of short rows, and for every row if they do not depend on the length.
    """
    config = model.config.get_text_config()
    kind = 0
    for rope in _ropes(config):
        name = str(rope.get("rope_type"))
        trained = rope.get("original_max_position_embeddings")
        if name == "longrope" and num_tokens > (trained or config.max_position_embeddings):
            kind = max(kind, 1)
        elif "dynamic" in name and num_tokens >= config.max_position_embeddings:
            kind = num_tokens
    return kind


def forget_lengths(model: PreTrainedModel) -> None:
    """Reset the frequencies that a longer row left behind, so that no other row uses them."""
    ropes = _ropes(model.config.get_text_config())
    if any("dynamic" in str(rope.get("rope_type")) for rope in ropes):
        for module in model.modules():
            rotary: Any = module  # no type says what a rotary embedding has
            if hasattr(rotary, "original_inv_freq") and hasattr(rotary, "max_seq_len_cached"):
                rotary.inv_freq = rotary.original_inv_freq.to(rotary.inv_freq.device)
                rotary.max_seq_len_cached = rotary.original_max_seq_len


def check_positions(model: PreTrainedModel, policy: PolicyParams) -> None:
    """Make sure that the longest row within the limits on tokens has a position for each token.

    A ModelError says that the model has a table of positions that is shorter.
    """
    prompt = {"max_prompt_tokens": policy.max_prompt_tokens}
    response = {"max_response_tokens": policy.max_response_tokens}
    if model.config.is_encoder_decoder:  # one reads the prompt, the other writes the response
        asked = {model.get_encoder(): prompt, model.get_decoder(): response}
    else:
        asked = {model: prompt | response}
    for part, limits in asked.items():
        needed, positions = sum(limits.values()), num_positions(part)
        if needed > positions:
            sums = " + ".join(f"policy.{name} = {limit}" for name, limit in limits.items())
            raise ModelError(
                f"the model has {positions:.0f} positions, and a row may have {needed} tokens "
                f"({sums}): lower them to at most {positions:.0f} together "
                "(parameters_policy.yml), or take a model with more positions"
            )


def num_positions(model: nn.Module) -> float:
    """Count the positions of a model; infinite if it computes them (rotary, relative, ALiBi)."""
    sizes = [math.inf]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and POSITIONS.search(name):
            sizes.append(module.num_embeddings - int(getattr(module, "offset", 0)))
    tables = dict(model.named_buffers(remove_duplicate=False))
    sizes += [len(table) for name, table in tables.items() if name.endswith(".embed_positions")]
    if getattr(getattr(model, "config", None), "model_type", None) == "mpt":  # a table of ALiBi's
        sizes.append(model.config.max_seq_len)  # type: ignore[union-attr,arg-type]
    return min(sizes)


def _ropes(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of rotary positions: one set, or one for each type of layer."""
    parameters: Mapping[str, Any] | None = getattr(config, "rope_parameters", None)
    if parameters and "rope_type" in parameters:
        yield parameters
    elif parameters:
        yield from (value for value in parameters.values() if isinstance(value, Mapping))


def _flat(value: object) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
