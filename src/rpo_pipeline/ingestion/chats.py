"""Prompts that are chats are stored in a column of text.

A chat of one user turn is stored as the text of that turn. Any other chat, with a system message or
several turns, is stored as the JSON text of its messages, always written the same way, so that
equal chats have equal hashes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rpo_pipeline.ingestion.fields import unpack
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError

Message = Mapping[str, str]
"""One turn of a chat: its role (``system``, ``user``, ``assistant``, ...) and content."""
Prompt = str | Sequence[Message]
"""A text, or a chat that the assistant answers next."""

OURS, OUR_ROLES = {"role", "content"}, ("system", "user", "assistant", "tool")
ROLES = {role: role for role in OUR_ROLES}
ROLES |= {"human": "user", "gpt": "assistant", "developer": "system", "prompter": "user"}
ROLES |= dict.fromkeys(
    "ai bot chatbot chatgpt claude model function_call tool_call".split(), "assistant"
)
ROLES |= dict.fromkeys(
    "function function_response ipython observation tool_response tool_result".split(), "tool"
)
"""Our name of each role, by the names that logs use in lower case."""
ROLE_NAMES = ("role", "from", "sender")
CONTENT_NAMES = ("content", "value", "parts", "text", "refusal")
"""Fields that may hold the content of a message; the first one with a value is used."""
ASSISTANT_TURN = "\n\nAssistant:"
"""Text that begins the assistant's turn in a dialogue that is written as one text."""
INVISIBLE = 64
"""A text of at least so many characters is taken to hold a visible one."""


def parse_prompt(prompt: Prompt) -> Prompt:
    """Return the messages of a prompt that is a chat; any other prompt is returned as it is."""
    if not isinstance(prompt, str) or '"role"' not in prompt or prompt.lstrip()[:1] != "[":
        return prompt
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt
    return messages if messages and all(map(_is_message, messages)) else prompt


def render_prompt(prompt: Prompt) -> str:
    """Write a prompt for people, labelers and reports; a chat is written turn by turn."""
    parsed = parse_prompt(prompt)
    if isinstance(parsed, str):
        return parsed
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in parsed)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return a prompt as a chat; a text becomes one user turn."""
    parsed = parse_prompt(prompt)
    turns = [{"role": "user", "content": parsed}] if isinstance(parsed, str) else parsed
    return [dict(message) for message in turns]


def write_prompt(messages: Sequence[Message]) -> str:
    """Write a chat for the prompt column, from which ``parse_prompt`` restores it.

    A single user turn is written as its content, any other chat as JSON.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        content = messages[0]["content"]
        if isinstance(parse_prompt(content), str):
            return content
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))


def first_user_turn(prompt: str) -> str:
    """Return the text that a conversation begins with.

    This is the first text of a user in a chat, which is empty if there is none, and the text before
    the first answer of a dialogue that is one text. Any other text is returned as it is.
    """
    parsed = parse_prompt(prompt)
    if isinstance(parsed, str):
        return parsed.partition(ASSISTANT_TURN)[0] if ASSISTANT_TURN in parsed else parsed
    users = (turn["content"] for turn in parsed if ROLES[turn["role"]] == "user")
    return next((content for content in users if not is_blank(content)), "")


def is_blank(text: str) -> bool:
    """Tell whether a text holds no visible character."""
    text = text.strip()
    if not text or len(text) >= INVISIBLE or text.isprintable():
        return not text
    return not any(character.isprintable() and character != " " for character in text)


def parse_chat(value: object) -> object:
    """Find the messages of a chat that a log holds in any form; they are not yet checked.

    A chat is a list of messages, one message, an object that holds ``messages``, or JSON text of
    these. A value that is no chat is returned as it is.
    """
    parsed = value
    if isinstance(value, str):
        if value[:1].isalnum():  # nearly all texts begin so, and no JSON of a chat does
            return value
        if not value.lstrip().startswith(("[", "{")) or not any(n in value for n in ROLE_NAMES):
            return value
        parsed = unpack(value)
    if isinstance(parsed, dict) and "messages" in parsed:
        parsed = parsed["messages"]
    elif isinstance(parsed, dict):
        parsed = [parsed]
    is_text = isinstance(value, str)
    return value if is_text and not _is_chat(parsed) else parsed


def read_messages(value: object) -> list[dict[str, str]]:
    """Check a chat of a log and name its roles and fields as this project does.

    A message holds ``role`` and ``content`` (a text, or a list of text parts), or ``from`` and
    ``value``; the chat may be JSON text. Calls of tools become text. Any other value raises
    ``RejectedError``.
    """
    parsed = unpack(value)
    if not isinstance(parsed, list) or not parsed:
        raise RejectedError(Reason.NOT_A_CHAT)
    return [_read_message(message) for message in parsed]


def calls_tool(message: Mapping[str, Any]) -> bool:
    """Tell whether a message calls a tool."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return bool(_calls(message)) or any(map(_is_call, parts))


def _read_message(message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RejectedError(Reason.NOT_A_CHAT)
    if message.keys() == OURS and message["role"] in OUR_ROLES and type(message["content"]) is str:
        return message  # the fast path: each row of a long chat repeats its earlier turns
    role, content = _role(message), _read_content(_field(message, CONTENT_NAMES))
    if calls := _calls(message):
        content = "\n".join([content, *calls] if content else calls)
    if role is None or not isinstance(content, str):
        raise RejectedError(Reason.NOT_A_CHAT)
    return {"role": role, "content": content}


def _field(message: Mapping[str, Any], names: Sequence[str]) -> Any:  # noqa: ANN401
    """Return the first field with a value; Parquet fills fields of other messages with nulls."""
    return next((message[name] for name in names if message.get(name) is not None), None)


def _role(message: Mapping[str, Any]) -> str | None:
    role = _field(message, ROLE_NAMES)
    return ROLES.get(role.strip().casefold()) if isinstance(role, str) else None


def _read_content(value: Any) -> Any:  # noqa: ANN401 (whatever the log holds)
    """Join the text parts of a message's content; content that is no list stays as it is."""
    if not isinstance(value, list):
        return value
    texts = [_read_part(part) if isinstance(part, dict) else part for part in value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RejectedError(Reason.NOT_A_CHAT)
    return "".join(map(str, texts))


def _read_part(part: Mapping[str, Any]) -> object:
    if _is_call(part):
        return _write_call(part)
    if part.get("type") == "tool_result":
        return _read_content(part.get("content"))
    return _field(part, ("text", "refusal"))


def _is_call(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "tool_use"


def _calls(message: Mapping[str, Any]) -> list[str]:
    """Return the texts of the tool calls that a message holds beside its content."""
    calls = unpack(message.get("tool_calls") or message.get("function_call"))
    listed = calls if isinstance(calls, list) else [calls] if calls else []
    return [_write_call(call) for call in listed]


def _write_call(call: object) -> str:
    """Write a tool call as one line of JSON: the tool's name and its arguments."""
    said = call.get("function", call) if isinstance(call, dict) else call
    if isinstance(said, dict) and "name" in said:
        given = unpack(_field(said, ("arguments", "args", "input")))
        said = {"name": said["name"], "arguments": {} if given is None else given}
    return json.dumps(said, ensure_ascii=False, default=str)


def _is_chat(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(
            isinstance(one, dict)
            and _role(one) is not None
            and (_field(one, CONTENT_NAMES) is not None or bool(_calls(one)))
            for one in messages
        )
    )


def _is_message(message: object) -> bool:
    if not isinstance(message, dict):
        return False
    role, content = message.get("role"), message.get("content")
    return isinstance(role, str) and role in ROLES and isinstance(content, str)
