"""Chats in a text column: several turns, or a system message, as canonical JSON.

One user turn alone is plain text. A chat is the JSON of its messages, always written alike, so that
equal chats have equal keys; a log that holds such JSON as a text holds a chat.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, str]
"""A turn of a chat: its role (``system``, ``user``, ``assistant``) and content."""
Prompt = str | Sequence[Message]
"""A text, or a chat that waits for the assistant."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, each with a known role and a text."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and message.get("role") in ROLES
            and isinstance(message.get("content"), str)
            for message in value
        )
    )


def write_prompt(messages: Sequence[Message]) -> str:
    """The text that stands for a chat in a prompt column."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    return json.dumps(turns, ensure_ascii=False)


def parse_prompt(text: str) -> Prompt:
    """What a prompt column holds: messages where it is the JSON of a chat, else the text."""
    if not text.startswith("[{"):
        return text
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not is_chat(value):
        return text
    messages: list[Message] = value
    return messages


def render_prompt(text: str) -> str:
    """A prompt as people and labelers read it: a chat turn by turn, a text as it is."""
    prompt = parse_prompt(text)
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
