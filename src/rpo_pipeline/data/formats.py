"""A record of any shape to flat fields: one prompt, one response, and what is known of the pair.

Each shape is one function from a record to flat fields by our names. One bad response never costs
the others of its record.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from statistics import mean
from typing import Any

from rpo_pipeline.data.chats import is_chat, write_prompt
from rpo_pipeline.data.quarantine import Reason, RejectedError
from rpo_pipeline.params import RatingParams

Fields = Mapping[str, Any]

ANNOTATIONS_MEAN = "annotations_mean"
RATINGS: dict[str, list[RatingParams]] = {
    "trl_unpaired": [
        RatingParams(
            column="label",
            values={"true": 1, "True": 1, "1": 1, "false": -1, "False": -1, "0": -1},
        )
    ],
    "trl_preference": [RatingParams(column="preferred", values={"true": 1, "false": -1})],
    "ultrafeedback": [
        RatingParams(column="overall_score", scale=(1, 10)),
        RatingParams(column=ANNOTATIONS_MEAN, scale=(1, 5)),
    ],
}
"""Ratings of the shapes that have their own, where the source names none."""
REWARD = [RatingParams(column="reward")]
TEXT_KEYS = ("response", "text", "content", "completion")
REWARD_KEYS = ("reward", "score", "rating")


def shape_of(record: Fields) -> str:
    """The shape that a record's fields tell; ``flat`` where none does."""
    if isinstance(_decoded(record.get("request"), dict), dict):
        return "openai_chat"
    for shape, names in SIGNS.items():
        if all(record.get(name) is not None for name in names):
            return shape
    return "flat"


def expand(record: Fields, shape: str) -> Iterator[Fields | RejectedError]:
    """Turn a record into flat fields.

    Args:
        record: Fields by our names; others are kept as they are.
        shape: Its format.

    Yields:
        Fields with a text ``prompt`` and ``response``, or why one of them cannot be used.
    """
    try:
        yield from SHAPES[shape](record)
    except RejectedError as rejected:
        yield rejected


def _flat(record: Fields) -> Iterator[Fields]:
    yield {
        **record,
        "prompt": _prompt(record.get("prompt")),
        "response": _response(record.get("response")),
    }


def _grouped(record: Fields) -> Iterator[Fields | RejectedError]:
    responses = _list(record, "responses")
    rewards = next(
        (_list(record, f"{key}s") for key in REWARD_KEYS if record.get(f"{key}s") is not None),
        [None] * len(responses),
    )
    if len(rewards) != len(responses):
        raise RejectedError(Reason.UNEVEN_LISTS)
    shared = {k: v for k, v in record.items() if k not in {"responses", "rewards", "scores"}}
    for response, reward in zip(responses, rewards, strict=True):
        own = dict(response) if isinstance(response, dict) else {"response": response}
        own["response"] = _first(own, TEXT_KEYS)
        own["reward"] = reward if reward is not None else _first(own, REWARD_KEYS)
        yield from expand({**shared, **own}, "flat")


def _messages(record: Fields) -> Iterator[Fields]:
    chat = _chat(_decoded(record.get("messages"), list))
    if chat[-1]["role"] != "assistant":
        raise RejectedError(Reason.MISSING_RESPONSE)
    yield from _flat({**record, "prompt": chat[:-1], "response": chat[-1]["content"]})


def _trl_unpaired(record: Fields) -> Iterator[Fields]:
    yield from _flat({**record, "response": record.get("completion")})


def _trl_preference(record: Fields) -> Iterator[Fields | RejectedError]:
    chosen, rejected = (_decoded(record.get(name), list) for name in ("chosen", "rejected"))
    prompt = record.get("prompt")
    both = isinstance(chosen, list) and isinstance(rejected, list)
    if both and (prompt is None or chosen[:1] == rejected[:1] != []):
        shared = _shared(chosen, rejected)
        if shared and _chat(chosen[:shared])[-1]["role"] != "assistant":
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    elif prompt is None:
        prompt, chosen, rejected = _implicit(chosen, rejected)
    for response, preferred in ((chosen, True), (rejected, False)):
        fields = {**record, "prompt": prompt, "response": response, "preferred": preferred}
        yield from expand(fields, "flat")


def _implicit(chosen: object, rejected: object) -> tuple[str, str, str]:
    """The prompt that two texts start with, up to the last whole word."""
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise RejectedError(Reason.NOT_TEXT)
    shared = chosen[: _shared(chosen, rejected)]
    cut = max((i + 1 for i, character in enumerate(shared) if character.isspace()), default=0)
    return chosen[:cut].rstrip(), chosen[cut:], rejected[cut:]


def _shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many elements two sequences start with alike."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _ultrafeedback(record: Fields) -> Iterator[Fields | RejectedError]:
    shared = {k: v for k, v in record.items() if k != "completions"}
    shared["prompt"] = record.get("instruction")
    for completion in _list(record, "completions"):
        if not isinstance(completion, dict):
            yield RejectedError(Reason.NOT_TEXT)
            continue
        own = {**completion, "model_version": completion.get("model")}
        own[ANNOTATIONS_MEAN] = _annotations_mean(completion.get("annotations"))
        yield from expand({**shared, **own}, "flat")


def _annotations_mean(annotations: object) -> float | None:
    """Mean of the ratings, 1 to 5, of the aspects that were judged."""
    aspects = annotations.values() if isinstance(annotations, dict) else []
    ratings = [str(aspect.get("Rating")) for aspect in aspects if isinstance(aspect, dict)]
    numbers = [float(rating) for rating in ratings if rating.replace(".", "", 1).isdigit()]
    return mean(numbers) if numbers else None


def _openai_chat(record: Fields) -> Iterator[Fields | RejectedError]:
    request, response = (
        _decoded(record.get(name), dict) if record.get(name) else dict(record)
        for name in ("request", "response")
    )
    if not (isinstance(request, dict) and isinstance(response, dict)):
        raise RejectedError(Reason.NOT_TEXT)
    request, response = request.get("body", request), response.get("body", response)
    shared = {k: v for k, v in record.items() if k not in {"request", "choices", "messages"}}
    shared |= {
        "prompt": request.get("messages"),
        "model_version": response.get("model") or request.get("model"),
        "timestamp": record.get("timestamp") or response.get("created"),
    }
    for choice in _list(response, "choices"):
        message = choice.get("message") if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        yield from expand({**shared, "response": content}, "flat")


SHAPES: dict[str, Callable[[Fields], Iterator[Fields | RejectedError]]] = {
    "flat": _flat,
    "grouped": _grouped,
    "messages": _messages,
    "trl_unpaired": _trl_unpaired,
    "trl_preference": _trl_preference,
    "ultrafeedback": _ultrafeedback,
    "openai_chat": _openai_chat,
}
# Fields that no other shape has, in the order in which they are looked for.
SIGNS: dict[str, Sequence[str]] = {
    "ultrafeedback": ("instruction", "completions"),
    "trl_preference": ("chosen", "rejected"),
    "trl_unpaired": ("prompt", "completion"),
    "openai_chat": ("messages", "choices"),
    "grouped": ("prompt", "responses"),
    "flat": ("prompt", "response"),
    "messages": ("messages",),
}


def _decoded(value: object, kind: type) -> Any:  # noqa: ANN401 (what JSON can say)
    """A list or object, also where it was written as a text that holds its JSON."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return decoded if isinstance(decoded, kind) else value
    return value


def _chat(value: object) -> list[dict[str, str]]:
    """A list of messages whose contents are text; parts of a content are joined."""
    turns: Any = [_joined(turn) for turn in value] if isinstance(value, list) else value
    if not is_chat(turns):
        raise RejectedError(Reason.NOT_A_CHAT)
    chat: list[dict[str, str]] = turns
    return chat


def _joined(message: object) -> object:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(message, dict) and isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return {**message, "content": "".join(map(str, texts))}
    return message


def _prompt(value: object) -> object:
    """The text of a prompt column; what is neither a text nor a chat is left to the check."""
    if isinstance(value, str):
        decoded = _decoded(value, list)
        value = decoded if is_chat(decoded) else value
    if not isinstance(value, list):
        return value
    chat = _chat(value)
    if chat[-1]["role"] == "assistant":
        raise RejectedError(Reason.NOT_A_CHAT)
    return write_prompt(chat)


def _response(value: object) -> object:
    if not isinstance(value, list):
        return value
    chat = _chat(value)
    if len(chat) != 1 or chat[0]["role"] != "assistant":
        raise RejectedError(Reason.NOT_A_CHAT)
    return chat[0]["content"]


def _list(record: Fields, name: str) -> list[Any]:
    value = _decoded(record.get(name), list)
    if not isinstance(value, list):
        raise RejectedError(Reason.NOT_A_LIST)
    if not value:
        raise RejectedError(Reason.MISSING_RESPONSE)
    return value


def _first(fields: Fields, names: Sequence[str]) -> object:
    return next((fields[name] for name in names if fields.get(name) is not None), None)
