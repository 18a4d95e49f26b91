"""Prompts that are chats, kept in a column of text.

A prompt of one user turn is the text of that turn. Any other chat, with a system message or several
turns, is the JSON text of its messages, always written the same way, so that equal chats have equal
hashes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rpo_pipeline.data.quarantine import Reason, RejectedError

Message = Mapping[str, str]
"""A turn of a chat: its role (``system``, ``user``, ``assistant``, ...) and content."""
Prompt = str | Sequence[Message]
"""A text, or a chat that waits for the assistant."""

ROLES = {"human": "user", "gpt": "assistant", "developer": "system"}


def parse_prompt(prompt: Prompt) -> Prompt:
    """Tell a chat from a text.

    Args:
        prompt: Of the prompt column; messages stay as they are.

    Returns:
        The messages, or the text.
    """
    if not isinstance(prompt, str) or not prompt.startswith("[{") or not prompt.endswith("}]"):
        return prompt
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt
    return messages if all(map(_is_message, messages)) else prompt


def render_prompt(prompt: Prompt) -> str:
    """A prompt as people, labelers and reports read it: a chat turn by turn."""
    parsed = parse_prompt(prompt)
    if isinstance(parsed, str):
        return parsed
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in parsed)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as a chat: a text is one user turn."""
    parsed = parse_prompt(prompt)
    turns = [{"role": "user", "content": parsed}] if isinstance(parsed, str) else parsed
    return [dict(message) for message in turns]


def write_prompt(messages: Sequence[Message]) -> str:
    """Text of a chat for the prompt column; ``parse_prompt`` gives it back.

    Args:
        messages: As ``read_messages`` returns them.

    Returns:
        The content of a single user turn, else JSON.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        content = messages[0]["content"]
        if isinstance(parse_prompt(content), str):
            return content
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))


def read_messages(value: object) -> list[dict[str, str]]:
    """Check a chat of a log and write its turns our way.

    Args:
        value: Messages with ``role`` and ``content`` (a text, or a list of text parts), or with
            ``from`` and ``value``; or their JSON text.

    Returns:
        Messages with role and content.

    Raises:
        RejectedError: If it is anything else.
    """
    parsed = parse_prompt(value) if isinstance(value, str) else value
    if not isinstance(parsed, list) or not parsed:
        raise RejectedError(Reason.NOT_TEXT)
    return [_read_message(message) for message in parsed]


def read_content(value: object) -> object:
    """Text of a message's content, which may come in parts; anything else stays what it is."""
    if not isinstance(value, list):
        return value
    texts = [part.get("text") if isinstance(part, dict) else part for part in value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RejectedError(Reason.NOT_TEXT)
    return "".join(map(str, texts))


def _read_message(message: Any) -> dict[str, str]:  # noqa: ANN401 (whatever the log holds)
    if not isinstance(message, dict):
        raise RejectedError(Reason.NOT_TEXT)
    role = message.get("role", message.get("from"))
    content = read_content(message.get("content", message.get("value")))
    if not isinstance(role, str) or not role or not isinstance(content, str):
        raise RejectedError(Reason.NOT_TEXT)
    return {"role": ROLES.get(role, role), "content": content}


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and all(isinstance(value, str) for value in message.values())
    )
