"""Text to token ids, such that the scored tokens are the generated tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from rpo_pipeline.data.groups import Group

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFormat:
    """How one model reads prompts and writes responses."""

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    max_prompt_tokens: int
    """Longer prompts are cut: at the end for an encoder, at the start for a decoder."""
    max_response_tokens: int
    """Longer responses are cut at the end, and carry no end token then."""

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; with a chat template each becomes one user turn."""
        if not prompts:
            return []
        if self.is_encoder_decoder:
            return self._cut_encoder_prompts(self.tokenizer(list(prompts))["input_ids"])
        if self.tokenizer.chat_template:
            chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
            encoding: Any = self.tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True
            )
            encoded: list[list[int]] = encoding["input_ids"]
        else:
            encoded = self.tokenizer(list(prompts))["input_ids"]
            # A decoder that has read an end token has nothing left to say.
            eos = self.tokenizer.eos_token_id
            encoded = [ids[:-1] if ids and ids[-1] == eos else ids for ids in encoded]
        return [ids[-self.max_prompt_tokens :] for ids in encoded]

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Token ids of responses, each with its end token unless it was cut at the limit."""
        if not responses:
            return []
        encoded = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        eos = self.tokenizer.eos_token_id
        return [[*ids, eos][: self.max_response_tokens] for ids in encoded]

    def _cut_encoder_prompts(self, encoded: list[list[int]]) -> list[list[int]]:
        limit, eos = self.max_prompt_tokens, self.tokenizer.eos_token_id
        return [
            ids
            if len(ids) <= limit
            else [*ids[: limit - 1], eos if ids[-1] == eos else ids[limit - 1]]
            for ids in encoded
        ]


def tokenise_groups(table: pd.DataFrame, text_format: TextFormat) -> list[Group]:
    """Turn rows into prompt groups.

    Args:
        table: Columns prompt_id, prompt, response; the rows of a prompt need not be adjacent.
        text_format: How the model reads and writes.

    Returns:
        One group per prompt_id in order of prompt_id; ``Group.rows`` are positions in ``table``.
    """
    if table.empty:
        return []
    order = np.argsort(table["prompt_id"].to_numpy(str), kind="stable")
    ids = table["prompt_id"].to_numpy(str)[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    prompts = text_format.encode_prompts(table["prompt"].iloc[order[starts]].tolist())
    responses = text_format.encode_responses(table["response"].iloc[order].tolist())
    _report_cuts(prompts, responses, text_format)
    return [
        Group(prompt, responses[start:stop], order[start:stop].tolist(), ids[start])
        for prompt, (start, stop) in zip(prompts, pairwise([*starts, len(order)]), strict=True)
    ]


def _report_cuts(
    prompts: list[list[int]], responses: list[list[int]], text_format: TextFormat
) -> None:
    eos = text_format.tokenizer.eos_token_id
    cut_responses = sum(ids[-1] != eos for ids in responses)
    full_prompts = sum(len(ids) == text_format.max_prompt_tokens for ids in prompts)
    if cut_responses or full_prompts:
        logger.warning(
            "%d of %d responses are cut at policy.max_response_tokens = %d, and %d of %d prompts "
            "reach policy.max_prompt_tokens = %d",
            cut_responses,
            len(responses),
            text_format.max_response_tokens,
            full_prompts,
            len(prompts),
            text_format.max_prompt_tokens,
        )
