"""Converts records of a chosen and a rejected response to flat records, one per response."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rpo_pipeline.ingestion.chats import ASSISTANT_TURN, parse_prompt
from rpo_pipeline.ingestion.fields import look_up
from rpo_pipeline.params import SourceParams

Fields = Mapping[str, Any]
SIDES = ("chosen", "rejected")


def flatten_preference(record: Fields, source: SourceParams) -> list[Fields]:
    """Flatten both responses; a field such as ``score_chosen`` belongs to one of them."""
    texts: list[Any] = [record.get(side) for side in SIDES]
    prompt, responses = _split_prompt(record.get("prompt"), *map(parse_prompt, texts))
    return [
        {
            **record,
            **_fields_of_side(record, source, side),
            "prompt": prompt,
            "response": response,
            "preference": preference,
        }
        for side, response, preference in zip(SIDES, responses, (1, -1), strict=True)
    ]


def _fields_of_side(record: Fields, source: SourceParams, side: str) -> dict[str, Any]:
    """Return the fields of one side without its name, and the ratings that name a side.

    ``chosen-rating`` is ``rating`` of the chosen response. If the rating column has that name, the
    rating of the rejected response is ``rejected-rating``. No field of one side counts for both.
    """
    words = [source.columns.get(one, one) for one in SIDES]
    name_of_side = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(map(re.escape, words))})(?![a-z])")
    own = words[SIDES.index(side)]
    at_either_end = re.compile(rf"^{re.escape(own)}[-_. ]|[-_. ]{re.escape(own)}$")
    named = {name: at_either_end.sub("", name) for name in record}
    fields = {shared: record[name] for name, shared in named.items() if shared != name}
    for rating in source.rating_columns:
        column = rating.column
        if name_of_side.search(column):
            fields[column] = look_up(record, name_of_side.sub(own, column))
    return fields


def _split_prompt(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, list[Any]]:  # noqa: ANN401
    # (whatever the log holds)
    """Return the prompt and both responses; without a prompt, it is what both begin with."""
    both = [chosen, rejected]
    chats = [one for one in both if isinstance(one, list)]
    if any(len(chat) > 1 for chat in chats):
        end = _num_shared(chats[0][:-1], chats[-1][:-1])  # one chat: all but its last turn
        responses = [one[end:] if isinstance(one, list) else one for one in both]
        return chats[0][:end] or prompt, responses
    if prompt is not None or not all(isinstance(one, str) for one in both):
        return prompt, both
    start = chosen[: _num_shared(chosen, rejected)]
    turn = start.rfind(ASSISTANT_TURN)
    # If the responses begin alike, only the turns of a dialogue tell where the prompt ends.
    end = turn + len(ASSISTANT_TURN) if turn >= 0 else len(start.removesuffix(" "))
    return start[:end], [one[end:] for one in both]


def _num_shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Count the leading items that two texts or chats have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
