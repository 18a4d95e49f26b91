"""Text to token ids, such that the scored tokens are the generated tokens."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from rpo_pipeline.data.groups import Group
from rpo_pipeline.errors import DataError

logger = logging.getLogger(__name__)

Message = Mapping[str, str]
"""A turn of a chat: its role (``system``, ``user``, ``assistant``) and content."""
Prompt = str | Sequence[Message]
"""A text, or a chat that waits for the assistant."""


@dataclass(frozen=True)
class TextFormat:
    """How one model reads prompts and writes responses."""

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    max_prompt_tokens: int
    """Longer prompts are cut: at the end for an encoder, at the start for a decoder."""
    max_response_tokens: int
    """Longer responses are cut at the end, and carry no end token then."""

    @cached_property
    def end_token_id(self) -> int:
        """Ends a response: the end-of-sequence or, in a chat, the end-of-turn token."""
        return find_end_token(self.tokenizer)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of prompts.

        Args:
            prompts: Each a text, which becomes one user turn where the model has a chat template,
                or the messages of a chat, a system message among them if there is one.

        Returns:
            Token ids, cut at ``max_prompt_tokens``.

        Raises:
            DataError: If there are messages and the model has no chat template.
        """
        return [self.cut(ids) for ids in self.encode_uncut(prompts)]

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Token ids of responses, each with its end token unless it was cut at the limit."""
        if not responses:
            return []
        encoded = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        return [[*ids, self.end_token_id][: self.max_response_tokens] for ids in encoded]

    def encode_uncut(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of whole prompts, as ``encode_prompts`` has them before its cut."""
        if not prompts:
            return []
        if self.tokenizer.chat_template:
            chats = [to_messages(prompt) for prompt in prompts]
            encoding: Any = self.tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True
            )
            chat_ids: list[list[int]] = encoding["input_ids"]
            return chat_ids
        if any(not isinstance(prompt, str) for prompt in prompts):
            raise DataError(
                "a prompt is a list of chat messages, and the tokenizer of this model has no chat "
                "template to write them as text (policy.name_or_path: a chat model, or give "
                "prompts as plain text)"
            )
        encoded: list[list[int]] = self.tokenizer(list(prompts))["input_ids"]
        if self.is_encoder_decoder:
            return encoded
        # A decoder that has read an end token has nothing left to say.
        eos = self.tokenizer.eos_token_id
        return [ids[:-1] if ids and ids[-1] == eos else ids for ids in encoded]

    def cut(self, prompt: list[int]) -> list[int]:
        """A prompt's token ids within the limit, with what the model needs at its end."""
        limit = self.max_prompt_tokens
        if len(prompt) <= limit:
            return prompt
        if not self.is_encoder_decoder:
            return prompt[-limit:]
        eos = self.tokenizer.eos_token_id
        return [*prompt[: limit - 1], eos if prompt[-1] == eos else prompt[limit - 1]]


@dataclass(frozen=True)
class Truncation:
    """How many prompts and responses a model did not see whole."""

    num_prompts: int
    cut_prompts: int
    num_responses: int
    cut_responses: int


def find_end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response: what its chat template writes after an assistant's words.

    Args:
        tokenizer: Of any model.

    Returns:
        The first special token behind an assistant turn; without a template, or a special token
        there, the end-of-sequence token.
    """
    if not tokenizer.chat_template:
        return int(tokenizer.eos_token_id)
    words = "words"
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": words}]
    text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    behind = tokenizer(text[text.rindex(words) + len(words) :], add_special_tokens=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return int(next((i for i in behind["input_ids"] if i in special), tokenizer.eos_token_id))


def tokenise_groups(table: pd.DataFrame, text_format: TextFormat) -> list[Group]:
    """Turn rows into prompt groups.

    Args:
        table: Columns prompt_id, prompt (text or messages), response; the rows of a prompt need
            not be adjacent.
        text_format: How the model reads and writes.

    Returns:
        One group per prompt_id in order of prompt_id; ``Group.rows`` are positions in ``table``.
    """
    if table.empty:
        return []
    order = np.argsort(table["prompt_id"].to_numpy(str), kind="stable")
    ids = table["prompt_id"].to_numpy(str)[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    prompts = text_format.encode_uncut(table["prompt"].iloc[order[starts]].tolist())
    responses = text_format.encode_responses(table["response"].iloc[order].tolist())
    groups = [
        Group(
            prompt=text_format.cut(prompt),
            responses=responses[start:stop],
            rows=order[start:stop].tolist(),
            prompt_id=ids[start],
            prompt_is_cut=len(prompt) > text_format.max_prompt_tokens,
        )
        for prompt, (start, stop) in zip(prompts, pairwise([*starts, len(order)]), strict=True)
    ]
    _warn_of_cuts(count_truncation(groups, text_format), text_format)
    return groups


def count_truncation(groups: Sequence[Group], text_format: TextFormat) -> Truncation:
    """Count what the limits on tokens cut.

    Args:
        groups: As ``tokenise_groups`` made them.
        text_format: That they were made with.

    Returns:
        Numbers of prompts and responses, and how many of each are cut.
    """
    ends = [ids[-1] for group in groups for ids in group.responses]
    return Truncation(
        num_prompts=len(groups),
        cut_prompts=sum(group.prompt_is_cut for group in groups),
        num_responses=len(ends),
        cut_responses=sum(end != text_format.end_token_id for end in ends),
    )


def to_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as the turns of a chat; a text is one user turn."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [dict(message) for message in turns]


def _warn_of_cuts(truncation: Truncation, text_format: TextFormat) -> None:
    if truncation.cut_responses or truncation.cut_prompts:
        logger.warning(
            "%d of %d responses are cut at policy.max_response_tokens = %d, and %d of %d prompts "
            "at policy.max_prompt_tokens = %d",
            truncation.cut_responses,
            truncation.num_responses,
            text_format.max_response_tokens,
            truncation.cut_prompts,
            truncation.num_prompts,
            text_format.max_prompt_tokens,
        )
