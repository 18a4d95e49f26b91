"""Finds prompts in texts that quote them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from markupsafe import escape

from rpo_pipeline.ingestion import parse_prompt, prompt_key

BEGINNING = 40
"""Characters at the start of a prompt by which it is found in a record that was cut."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Quotes:
    """Tells whether a text quotes one of several prompts, some of whose texts are known."""

    def __init__(self, prompt_ids: set[str], prompts: set[str]) -> None:
        self._prompt_ids = prompt_ids
        self._prompts = [_parts(prompt) for prompt in prompts]

    def in_text(self, text: str) -> bool:
        """Tell whether a text holds a prompt, as it is or escaped for HTML, JSON or CSV."""
        return any(_are_in(text, parts) for parts in self._prompts)

    def in_record(self, raw: str) -> bool:
        """Tell whether the raw text of a record holds a prompt.

        A record that is JSON must have values equal to the prompt, or to all messages of a chat. In
        a record that cannot be parsed, the beginning of the prompt is enough.
        """
        try:
            values = set(_strings(json.loads(raw)))
        except (ValueError, RecursionError):
            beginnings = ([part[:BEGINNING] for part in parts] for parts in self._prompts)
            return any(_are_in(raw, parts) for parts in beginnings)
        texts = [value for value in values if not LONE_SURROGATE.search(value)]
        if any(prompt_key(text) in self._prompt_ids for text in texts):
            return True
        return any(values.issuperset(parts) for parts in self._prompts)


def _parts(prompt: str) -> list[str]:
    """Return the messages of a chat, or the prompt itself."""
    parsed = parse_prompt(prompt)
    return [parsed] if isinstance(parsed, str) else [turn["content"] for turn in parsed]


def _are_in(text: str, parts: list[str]) -> bool:
    return all(any(one in text for one in _spellings(part)) for part in parts)


def _spellings(text: str) -> set[str]:
    in_json = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return {text, str(escape(text)), text.replace('"', '""'), *in_json}


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 (anything that JSON can say)
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
