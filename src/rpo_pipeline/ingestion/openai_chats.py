"""Converts requests to an OpenAI-compatible endpoint, with answers, to a flat record per choice."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rpo_pipeline.ingestion.fields import list_of, look_up, unpack
from rpo_pipeline.params import SourceParams

Fields = Mapping[str, Any]


def holds_answer(record: Fields) -> bool:
    """Tell whether a record is a request with its response."""
    return "messages" in _request(record) and "choices" in _answer(record)


def flatten_chat(record: Fields, _: SourceParams) -> list[Fields]:
    """Flatten a request with its answers; each choice is a response."""
    request, answer = _request(record), _answer(record)
    return [
        {
            **record,
            "model_version": answer.get("model", request.get("model")),
            "timestamp": record.get("timestamp", answer.get("created")),
            "prompt": unpack(request.get("messages")),
            "response": choice.get("message") if isinstance(choice, Mapping) else choice,
        }
        for choice in list_of(answer.get("choices"))
    ]


def _request(record: Fields) -> Fields:
    return next(_nested(record, ("request.body", "request", "body")), record)


def _answer(record: Fields) -> Fields:
    return next(_nested(record, ("response.body", "response")), record)


def _nested(record: Fields, names: Sequence[str]) -> Iterator[Fields]:
    for name in names:
        value = unpack(look_up(record, name))
        if isinstance(value, Mapping):
            yield value
