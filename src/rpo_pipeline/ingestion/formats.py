"""Converts records of any shape to flat records: one prompt, one response and its rating each.

A format is a function from a record to flat records, and a test that recognises its records. Other
fields of a record are kept in its flat records, so that ratings, timestamps and model versions are
found there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.chats import read_messages
from rpo_pipeline.ingestion.columns import suggest
from rpo_pipeline.ingestion.fields import ABSENT, is_missing, list_of, look_up, unpack
from rpo_pipeline.ingestion.preferences import flatten_preference
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError
from rpo_pipeline.params import SourceParams

Fields = Mapping[str, Any]

RESPONSE_NAMES = ("response", "text", "content", "completion")
REWARD_NAMES = ("reward", "score", "rating")
REWARD_LISTS = {"rewards", "scores", "ratings"}
CHATS = ("messages", "conversations", "conversation")
"""Names of the field that holds a chat; the first one that a record has counts."""
HINT_DEPTH = 4


@dataclass(frozen=True)
class Format:
    """One shape of records."""

    needs: str
    """Content of its records, for messages."""
    fits: Callable[[Fields], bool]
    flatten: Callable[[Fields, SourceParams], Iterable[Fields]]
    """Function to flat records; raises ``RejectedError`` for a record without any response."""


def flatten(record: Fields, source: SourceParams) -> Iterable[Fields]:
    """Turn a record into flat records, one for each response and at least one, by our names.

    They are not yet checked. The format of the source is not ``auto``. ``RejectedError`` is raised
    if the record as a whole cannot be used.
    """
    return FORMATS[source.format].flatten(_by_our_names(record, source), source)


def detect_format(records: Sequence[Fields], source: SourceParams, path: str) -> str:
    """Detect the format that fits most of the first records of a file; ``flat`` without records.

    The path is for messages. ``DataError`` is raised if no format fits, or two do.
    """
    if not records:
        return "flat"
    ours = [_by_our_names(record, source) for record in records]
    fitting = Counter(
        name for one in ours for name, format_ in FORMATS.items() if format_.fits(one)
    )
    best = [name for name, count in fitting.items() if count == max(fitting.values())]
    if len(best) == 1:
        return best[0]
    known = "; ".join(f"{name} ({format_.needs})" for name, format_ in FORMATS.items())
    problem = f"both {' and '.join(best)} fit" if best else "no format fits"
    raise DataError(
        f"{path}: {problem} records with the fields {', '.join(map(repr, ours[0]))[:300]} "
        f"{_hint(records, source)}"
        f"(ingestion.sources[].format names one, .columns maps names to ours). Formats: {known}"
    )


def _hint(records: Sequence[Fields], source: SourceParams) -> str:
    """Name a possible cause: a named column that no record has, or a chat inside of an object."""
    for name in source.columns.values():
        if all(look_up(record, name, ABSENT) is ABSENT for record in records):
            return f"and none holds the column {name!r}{suggest(name, list(records[0]))} "
    inside = next(_chats_inside(records[0], ""), None)
    return f"and there is a chat at {inside} (columns: {{messages: {inside}}}) " if inside else ""


def _chats_inside(fields: Fields, path: str, depth: int = HINT_DEPTH) -> Iterator[str]:
    for name, value in fields.items():
        inner = unpack(value)
        if name in CHATS and isinstance(inner, list):
            yield f"{path}{name}"
        elif isinstance(inner, Mapping) and depth:
            yield from _chats_inside(inner, f"{path}{name}.", depth - 1)


def _by_our_names(record: Fields, source: SourceParams) -> Fields:
    if not source.columns:
        return record
    return {**record, **{ours: look_up(record, name) for ours, name in source.columns.items()}}


def _grouped(record: Fields, source: SourceParams) -> list[Fields]:
    """Flatten responses that are texts or objects; lists of the same length belong to them."""
    responses = list_of(record.get("responses"))
    parallel = {
        name.removesuffix("s") if name in REWARD_LISTS else name: unpack(value)
        for name, value in record.items()
        if name != "responses" and isinstance(unpack(value), list)
    }
    for name in REWARD_NAMES:
        if name in parallel and len(parallel[name]) != len(responses):
            raise RejectedError(Reason.UNEVEN_LISTS)
    shared = {name: value for name, value in record.items() if name != "responses"}
    flat: list[Fields] = [
        {
            **_names(response),
            **shared,
            **_name_reward(
                {
                    name: values[number]
                    for name, values in parallel.items()
                    if name != "prompt" and len(values) == len(responses)
                }
            ),
            **_read_response(response),
        }
        for number, response in enumerate(responses)
    ]
    no_list = any(not is_missing(record.get(name)) for name in REWARD_LISTS & shared.keys())
    if no_list and not parallel.keys() & {*REWARD_NAMES} and not _is_rated(flat, source):
        raise RejectedError(Reason.NOT_A_LIST)
    return flat


def _is_rated(records: Iterable[Fields], source: SourceParams) -> bool:
    names = [rating.column for rating in source.rating_columns]
    return any(not is_missing(look_up(one, name)) for one in records for name in names)


def _read_response(response: object) -> Fields:
    if not isinstance(response, Mapping):
        return {"response": response}
    fields = _present(response)
    text = next((fields[name] for name in RESPONSE_NAMES if name in fields), None)
    return {**_name_reward(fields), "response": text}


def _present(fields: Fields) -> Fields:
    """Leave out nulls: a Parquet file gives every object the fields of all others."""
    return {name: value for name, value in fields.items() if value is not None}


def _names(fields: object) -> Fields:
    """Return the field names of an object with nulls as values."""
    return dict.fromkeys(fields) if isinstance(fields, Mapping) else {}


def _name_reward(fields: Fields) -> Fields:
    name = next((name for name in REWARD_NAMES if name in fields), None)
    return fields if name in (None, "reward") else {**fields, "reward": fields[str(name)]}


def _messages(record: Fields, source: SourceParams) -> Iterable[Fields]:
    """Flatten the last turn of the assistant, or each of its turns that carries a rating."""
    turns = unpack(_chat(record))
    messages = read_messages(turns)
    system = record.get("system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        turns, messages = [None, *turns], [{"role": "system", "content": system}, *messages]
    ends = [end for end, message in enumerate(messages) if message["role"] == "assistant"]
    names = [rating.column for rating in source.rating_columns]
    rated = [end for end in ends if not all(is_missing(look_up(turns[end], n)) for n in names)]
    if not ends:
        raise RejectedError(Reason.MISSING_RESPONSE)
    # They are made one by one: each holds all turns before it, so together they outgrow the chat.
    return (
        {
            **_names(turns[end]),
            **record,
            **_present(turns[end]),
            "prompt": messages[:end],
            "response": turns[end],
        }
        for end in rated or ends[-1:]
    )


def _chat(record: Fields) -> Any:  # noqa: ANN401 (whatever the log holds)
    return next((record[name] for name in CHATS if record.get(name) is not None), None)


def _ultrafeedback(record: Fields, _: SourceParams) -> list[Fields]:
    shared = {**record, "prompt": record.get("instruction")}
    return [
        {
            **shared,
            **_present(completion),
            "model_version": completion.get("model"),
            "annotations_mean": _annotations_mean(completion.get("annotations")),
        }
        if isinstance(completion, Mapping)
        else {**shared, "response": completion}
        for completion in list_of(record.get("completions"))
    ]


def _annotations_mean(annotations: object) -> float | None:
    """Return the mean of the ratings, 1 to 5, of all rated aspects."""
    aspects = annotations.values() if isinstance(annotations, Mapping) else []
    ratings = [str(aspect.get("Rating")) for aspect in aspects if isinstance(aspect, Mapping)]
    return mean(judged) if (judged := [float(r) for r in ratings if r in {*"12345"}]) else None


def _holds_chat(record: Fields) -> bool:
    return "messages" in record or isinstance(unpack(_chat(record)), list)


def _openai_chat(record: Fields, _: SourceParams) -> list[Fields]:
    """Flatten a request to an OpenAI-compatible endpoint; each choice is a response."""
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


def _holds_answer(record: Fields) -> bool:
    """Tell whether a record is a request with its response."""
    return "messages" in _request(record) and "choices" in _answer(record)


def _request(record: Fields) -> Fields:
    return _object_at(record, "request.body", "request", "body")


def _answer(record: Fields) -> Fields:
    return _object_at(record, "response.body", "response")


def _object_at(record: Fields, *names: str) -> Fields:
    """Return the first object at one of these paths, or the record itself."""
    values = (unpack(look_up(record, name)) for name in names)
    return next((value for value in values if isinstance(value, Mapping)), record)


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda record: record.keys() >= {*names}


RESPONSES = {"response", "responses", "completion", "chosen", "choices"}

FORMATS = {
    "flat": Format(
        "prompt, response",
        lambda record: record.keys() >= {"prompt", "response"} and not _holds_answer(record),
        lambda record, _: [record],
    ),
    "grouped": Format("prompt, responses", _has("prompt", "responses"), _grouped),
    "messages": Format(
        "messages, or conversations of `from` and `value`",
        lambda record: _holds_chat(record) and not RESPONSES & record.keys(),
        _messages,
    ),
    "trl_unpaired": Format(
        "prompt, completion, label",
        _has("prompt", "completion", "label"),
        lambda record, _: [{**record, "response": record.get("completion")}],
    ),
    "trl_preference": Format("chosen, rejected", _has("chosen", "rejected"), flatten_preference),
    "ultrafeedback": Format(
        "instruction, completions", _has("instruction", "completions"), _ultrafeedback
    ),
    "openai_chat": Format("request.messages, response.choices", _holds_answer, _openai_chat),
}
