"""Texts and chats as token ids, in which what a person wrote never becomes a control token.

This file needs transformers and nothing of the project: it travels with every registered version,
so that a served model reads prompts as training did.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

Chat = Sequence[Mapping[str, str]]
SOURCE = Path(__file__)
"""Path of this file, which is copied into every version."""
MARK = "\U000f0000"
"""Character at which ``encode_marked_chat`` of transformers breaks a text, and which it removes."""
WORDS = "these are words"


class TemplateRefusalError(ValueError):
    """The chat template of a model refuses a chat."""


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str | Chat], *, is_encoder_decoder: bool
) -> list[list[int]]:
    """Encode whole prompts: texts and, if the tokenizer has a chat template, chats.

    The template writes a text as one user turn, and a TemplateRefusalError says that it refuses a
    chat. A prompt keeps the end token only if an encoder reads it.
    """
    if not prompts:
        return []
    if tokenizer.chat_template:
        chats = [
            [{"role": "user", "content": one}] if isinstance(one, str) else one for one in prompts
        ]
        return encode_chats(tokenizer, chats, add_generation_prompt=True)
    encoded = encode_texts(tokenizer, [str(one) for one in prompts], add_special_tokens=True)
    if is_encoder_decoder:
        return encoded
    # A decoder that has read an end token has nothing left to say.
    eos = tokenizer.eos_token_id
    return [ids[:-1] if ids and ids[-1] == eos else ids for ids in encoded]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool
) -> list[list[int]]:
    """Encode texts by people or models, in which control tokens are plain text."""
    if not texts:
        return []
    encode = partial(tokenizer.__call__, add_special_tokens=add_special_tokens, verbose=False)
    pattern = _pattern(tokenizer)
    written = [place for place, text in enumerate(texts) if pattern.search(text)]
    ids: list[list[int]] = encode([*texts])["input_ids"]
    if written:
        before, behind = _surroundings(tokenizer) if add_special_tokens else ([], [])
        for place in written:
            ids[place] = [*before, *_encode_plain(tokenizer, texts[place], pattern), *behind]
    return ids


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], *, add_generation_prompt: bool
) -> list[list[int]]:
    """Encode chats as the chat template writes them; only the template writes control tokens.

    A TemplateRefusalError says that the template refuses a chat.
    """
    write: Any = partial(tokenizer.apply_chat_template, add_generation_prompt=add_generation_prompt)
    pattern = _pattern(tokenizer)
    written = [
        place
        for place, chat in enumerate(chats)
        if any(pattern.search(str(value)) for turn in chat for value in turn.values())
    ]
    try:
        encoding: Any = write([*chats], tokenize=True, return_dict=True)
        ids: list[list[int]] = encoding["input_ids"]
        for place in written:
            try:
                marked: Any = write(
                    chats[place], tokenize=True, return_dict=True, sanitize_control_tokens=True
                )
                ids[place] = marked["input_ids"]
            except ValueError:  # the vocabulary has the token as a word, so break the word
                broken = [
                    {key: _break(value, pattern) for key, value in turn.items()}
                    for turn in chats[place]
                ]
                ids[place] = encode_marked_chat(tokenizer, str(write(broken, tokenize=False)))
    except Exception as err:  # a template may fail in any way
        raise _refusal(write, chats, err) from err
    return ids


def cut_prompt(
    prompt: list[int], limit: int, tokenizer: PreTrainedTokenizerBase, *, is_encoder_decoder: bool
) -> list[int]:
    """Cut a prompt at a limit, but keep the tokens that the model needs at its end.

    A prompt that an encoder reads loses its end, another one its start.
    """
    if len(prompt) <= limit:
        return prompt
    if not is_encoder_decoder:
        return prompt[-limit:]
    eos = tokenizer.eos_token_id
    return [*prompt[: limit - 1], eos if prompt[-1] == eos else prompt[limit - 1]]


def until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the tokens of an answer up to and with its end token; all if it has none."""
    stop = next((place for place, token in enumerate(ids, start=1) if token in ends), None)
    return [*ids[:stop]]


def decode_answer(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], ends: Sequence[int]
) -> str:
    """Decode an answer without the token that ends it, special or not."""
    words = ids[:-1] if ids and ids[-1] in ends else ids
    return str(tokenizer.decode([*words], skip_special_tokens=True))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens that only the tokenizer and its chat template may write.

    These are the special tokens, and the added tokens by which the template separates turns. Added
    tokens that the model itself writes, such as those around its thoughts, are text.
    """
    added = tokenizer.added_tokens_decoder.values()
    turns = _write_turns(tokenizer) if tokenizer.chat_template else ""
    return [
        token.content
        for token in added
        if token.special or (token.content in turns and not token.content.isspace())
    ]


def _write_turns(tokenizer: PreTrainedTokenizerBase) -> str:
    chat = [{"role": role, "content": WORDS} for role in ("user", "assistant", "user")]
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False))
    except Exception:  # encode_chats raises this error when a prompt needs the template
        return ""


def _pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    known = tokenizer.chat_control_tokens
    tokens = control_tokens(tokenizer) if known is None else known
    special = [one.content for one in tokenizer.added_tokens_decoder.values() if one.special]
    longest_first = sorted({*tokens, *special}, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _encode_plain(
    tokenizer: PreTrainedTokenizerBase, text: str, pattern: re.Pattern[str]
) -> list[int]:
    try:
        ids: list[int] = encode_marked_chat(tokenizer, mark_control_tokens(text, pattern))
    except ValueError:
        ids = encode_marked_chat(tokenizer, _break(text, pattern))
    return ids


def _break(text: str, pattern: re.Pattern[str]) -> str:
    """Separate the letters of each control token, so that it is not looked up as a whole."""
    return pattern.sub(lambda found: MARK + MARK.join(found[0]) + MARK, text.replace(MARK, ""))


def _surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the tokens that a tokenizer adds before and behind a text."""
    bare = tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    whole = tokenizer(WORDS)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _refusal(write: Any, chats: Sequence[Chat], err: Exception) -> TemplateRefusalError:  # noqa: ANN401 (a method of transformers)
    refused = []
    for chat in chats:
        try:
            write(chat, tokenize=False)
        except Exception as one:  # whatever a template raises
            refused.append((chat, one))
    chat, reason = refused[0] if refused else (chats[0], err)
    roles = ", ".join(str(message.get("role")) for message in chat)
    return TemplateRefusalError(
        f"the chat template of the model refuses {len(refused)} of {len(chats)} chats, such as one "
        f"with the turns {roles} that begins {str(chat[0].get('content'))[:60]!r}: {reason}"
    )
