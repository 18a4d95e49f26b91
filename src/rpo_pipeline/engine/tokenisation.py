"""Turns texts into token ids, such that the scored tokens are the generated tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from rpo_pipeline.engine.chat_templates import folds_system, writes_role
from rpo_pipeline.engine.encoding import (
    TemplateRefusalError,
    cut_prompt,
    encode_prompts,
    encode_texts,
)
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.errors import DataError, ModelError
from rpo_pipeline.ingestion import Message, Prompt, as_messages, parse_prompt, render_prompt

logger = logging.getLogger(__name__)

MAX_UNKNOWN_SHARE = 0.001
"""Share of tokens unknown to the vocabulary above which a warning is given."""


@dataclass(frozen=True)
class TextFormat:
    """The text format of a model: how it reads prompts and writes responses."""

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    max_prompt_tokens: int
    """Longer prompts are cut: at the end for an encoder, at the start for a decoder."""
    max_response_tokens: int
    """Longer responses are cut at the end, and carry no end token then."""

    @cached_property
    def end_token_id(self) -> int:
        """Token that ends a response: end of sequence or, in a chat, end of turn."""
        return find_end_token(self.tokenizer)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Encode prompts, and cut them at ``max_prompt_tokens``.

        A prompt is a text, which becomes one user turn if the model has a chat template; messages
        of a chat; or messages as JSON text, as the prompt column holds them. A DataError says that
        there are messages and no chat template, a ModelError that the template refuses a chat.
        """
        return [self.cut(ids) for ids in self.encode_uncut(prompts)]

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Encode responses, each with its end token unless it is cut at the limit."""
        encoded = encode_texts(self.tokenizer, responses, add_special_tokens=False)
        return [[*ids, self.end_token_id][: self.max_response_tokens] for ids in encoded]

    def encode_uncut(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Encode whole prompts, as ``encode_prompts`` does before its cut."""
        read: Sequence[Prompt]
        if self.tokenizer.chat_template:
            read = chats = [as_messages(prompt) for prompt in prompts]
            _warn_of_roles(chats, self.tokenizer)
        elif all(isinstance(prompt, str) for prompt in prompts):
            read = _texts(prompts)
        else:
            raise DataError(
                "a prompt is a list of chat messages, and the tokenizer of this model has no "
                "chat template to write them as text (policy.name_or_path: a chat model, or "
                "give prompts as plain text)"
            )
        try:
            return encode_prompts(self.tokenizer, read, is_encoder_decoder=self.is_encoder_decoder)
        except TemplateRefusalError as err:
            raise ModelError(
                f"{err} (policy.name_or_path: a model that takes them, or leave such chats out of "
                "the log)"
            ) from err

    def cut(self, prompt: list[int]) -> list[int]:
        """Cut a prompt at the limit, but keep the tokens that the model needs at its end."""
        limit, is_encoder_decoder = self.max_prompt_tokens, self.is_encoder_decoder
        return cut_prompt(prompt, limit, self.tokenizer, is_encoder_decoder=is_encoder_decoder)


def find_end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Find the token that ends a response, which the chat template writes after an answer.

    It is the first special token behind an assistant turn; without a template or such a token, the
    end-of-sequence token.
    """
    if not tokenizer.chat_template:
        return int(tokenizer.eos_token_id)
    words = "words"
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": words}]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    except Exception as err:  # a template may fail in any way
        raise ModelError(
            f"the chat template of the model cannot write a question and its answer: {err}"
        ) from err
    _, _, end = text.rpartition(words)
    behind = tokenizer(end, add_special_tokens=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return int(next((i for i in behind["input_ids"] if i in special), tokenizer.eos_token_id))


def tokenise_groups(
    table: pd.DataFrame, text_format: TextFormat, *, as_drawn: bool = False
) -> list[Group]:
    """Turn rows of a table into one prompt group per prompt_id, in order of prompt_id.

    The columns are prompt_id, prompt (text or messages) and response; the rows of a prompt need not
    be adjacent. Of responses as they were drawn, the tokens are those of the column token_ids, not
    of their text. ``Group.rows`` are positions in the table.
    """
    if table.empty:
        return []
    order = np.argsort(table["prompt_id"].to_numpy(str), kind="stable")
    ids = table["prompt_id"].to_numpy(str)[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    prompts = text_format.encode_uncut(table["prompt"].iloc[order[starts]].tolist())
    if as_drawn:
        responses = [[*map(int, tokens)] for tokens in table["token_ids"].iloc[order]]
    else:
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
    if not as_drawn:
        _warn_of_cuts(groups, text_format)
        _warn_of_unknown(prompts, responses, table["response"], text_format.tokenizer)
    return groups


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    """Write chats of the prompt column as text, for a model without a chat template."""
    chats = sum(not isinstance(parse_prompt(prompt), str) for prompt in prompts)
    if chats:
        logger.warning(
            "%d of %d prompts are chats, and this model has no chat template: it reads each turn "
            "as `role: content` (policy.name_or_path: a chat model has one)",
            chats,
            len(prompts),
        )
    return [render_prompt(prompt) for prompt in prompts]


def _warn_of_cuts(groups: Sequence[Group], text_format: TextFormat) -> None:
    ends = [ids[-1] for group in groups for ids in group.responses]
    cut_responses = sum(end != text_format.end_token_id for end in ends)
    cut_prompts = sum(group.prompt_is_cut for group in groups)
    if cut_responses or cut_prompts:
        logger.warning(
            "%d of %d responses are cut at policy.max_response_tokens = %d, and %d of %d prompts "
            "at policy.max_prompt_tokens = %d",
            *(cut_responses, len(ends), text_format.max_response_tokens),
            *(cut_prompts, len(groups), text_format.max_prompt_tokens),
        )


def _warn_of_roles(chats: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn of turns that the chat template writes elsewhere, or not at all."""
    for role in ("system", "tool"):
        count = sum(any(turn["role"] == role for turn in chat) for chat in chats)
        if not count:
            continue
        if role == "system" and folds_system(tokenizer):
            logger.warning(
                "%d of %d prompts have a system message, which the chat template of this model "
                "does not take: it is written at the start of the user turn behind it",
                *(count, len(chats)),
            )
        elif not writes_role(tokenizer, role):
            logger.warning(
                "%d of %d prompts have a %s message, which the chat template of this model may "
                "leave out (policy.name_or_path: a model that reads such turns)",
                *(count, len(chats), role),
            )


def _warn_of_unknown(
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    texts: pd.Series,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Warn of text for which the vocabulary of the model has no token."""
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        for name, sequences in (("prompts", prompts), ("responses", responses)):
            total = sum(map(len, sequences))
            count = sum(ids.count(unknown) for ids in sequences)
            if count > MAX_UNKNOWN_SHARE * total:
                logger.warning(
                    "%d of %d tokens (%.1f %%) of the %s are %s: the vocabulary of this model has "
                    "no token for what stands there (policy.name_or_path)",
                    *(count, total, 100 * count / total, name, tokenizer.unk_token),
                )
    if "\n" not in str(tokenizer.decode(tokenizer("a\nb", add_special_tokens=False)["input_ids"])):
        lines = int(texts.str.contains("\n", regex=False).sum())
        if lines:
            logger.warning(
                "%d of %d responses have several lines, and this model knows no line break: it "
                "reads and writes them as one line (policy.name_or_path)",
                *(lines, len(texts)),
            )
