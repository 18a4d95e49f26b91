"""Checks one record of a source and turns it into a row."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from rpo_pipeline.ingestion.chats import (
    calls_tool,
    first_user_turn,
    is_blank,
    parse_chat,
    read_messages,
    write_prompt,
)
from rpo_pipeline.ingestion.fields import is_missing, look_up, plain, read_number, read_time
from rpo_pipeline.ingestion.quarantine import Reason, RejectedError
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.params import RatingParams, SourceParams, rating_word

LARGEST_REWARD = 1e38
"""Largest rating, near the end of single precision."""
UNREAD_TIME = "unread_time"
"""Key that marks a row whose time could not be read; it is no column of the table."""
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
WHOLE_ID = re.compile(r"(\d+)\.0+")
"""A whole number as pandas writes it in a column with gaps."""

ROW_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("raw_reward", pa.float64()),
        ("reward_source", pa.string()),
        ("is_declared", pa.bool_()),  # its source declares a scale or the words of ratings
        ("origin", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("model_version", pa.string()),
        ("behaviour_logps", pa.float64()),
        ("split_point", pa.float64()),  # uniform in [0, 1), from the prompt alone
        ("conversation", pa.string()),  # prompt_id of a chat's first user turn; null for a text
        ("position", pa.int64()),  # order of reading
    ]
)

RATING_SCHEMA = pa.schema(
    [
        ("response_id", pa.string()),
        *map(ROW_SCHEMA.field, "raw_reward reward_source is_declared timestamp origin".split()),
    ]
)


def prompt_key(prompt: str) -> str:
    """Hash the content of a prompt: 32 hexadecimal digits, the same on every machine."""
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


def row_key(prompt: str, response: str) -> str:
    """Hash the content of a prompt and a response, so that moving text between them counts."""
    return prompt_key(prompt_key(prompt) + response)


NOTHING_PRIVATE = Privacy()


def parse_record(
    record: Mapping[str, Any], source: SourceParams, privacy: Privacy = NOTHING_PRIVATE
) -> dict[str, Any]:
    """Check a flat record (``formats.flatten``) and turn it into a row.

    The row has the columns of ``ROW_SCHEMA`` without origin and position; ``response_id`` (null
    without ``source.key``); and ``UNREAD_TIME`` if its time could not be read. Texts are redacted
    before they are hashed. A record that cannot be used raises ``RejectedError``; a forgotten
    prompt is reported before anything else that is wrong, so that its text is not kept.
    """
    prompt = privacy.redact_prompt(_text(_prompt(record.get("prompt")), Reason.MISSING_PROMPT))
    prompt_id = prompt_key(prompt)
    if prompt_id in privacy.forgotten:
        raise RejectedError(Reason.FORGOTTEN)
    beginning = first_user_turn(prompt)
    if beginning is not prompt and is_blank(beginning):
        raise RejectedError(Reason.MISSING_PROMPT)
    response = privacy.redact(_text(_response(record.get("response")), Reason.MISSING_RESPONSE))
    if len(prompt) > source.max_text_characters or len(response) > source.max_text_characters:
        raise RejectedError(Reason.TOO_LONG)
    version = record.get("model_version")
    return {
        "row_id": row_key(prompt, response),
        "prompt_id": prompt_id,
        "prompt": prompt,
        "response": response,
        **_rating(record, source.rating_columns),
        **_timestamp(record.get("timestamp")),
        "model_version": None if is_missing(version) else _text(str(version), Reason.INVALID_TEXT),
        "behaviour_logps": _behaviour_logps(record.get("behaviour_logps")),
        "split_point": int(prompt_id[:13], 16) / 16**13,
        "conversation": None if beginning is prompt else prompt_key(beginning),
        "response_id": _response_id(record, source),
    }


def parse_rating(record: Mapping[str, Any], source: SourceParams) -> dict[str, Any]:
    """Check a record of a ratings file, by the names of the source.

    Returns the columns of ``RATING_SCHEMA`` without origin, and ``UNREAD_TIME`` if its time could
    not be read. ``RejectedError`` is raised if it names no response or holds no rating, or one that
    cannot be used.
    """
    response_id = _response_id(record, source)
    if response_id is None:
        raise RejectedError(Reason.UNKNOWN_RESPONSE)
    rating = _rating(record, source.rating_columns)
    if rating["raw_reward"] is None:
        raise RejectedError(Reason.MISSING_RATING)
    return {
        "response_id": response_id,
        **rating,
        **_timestamp(look_up(record, source.columns.get("timestamp", "timestamp"))),
    }


def _response_id(record: Mapping[str, Any], source: SourceParams) -> str | None:
    value = plain(look_up(record, source.key)) if source.key else None
    if is_missing(value):
        return None
    text = str(value).strip()
    whole = WHOLE_ID.fullmatch(text)
    return _text(whole[1] if whole else text, Reason.INVALID_TEXT)


def _timestamp(value: object) -> dict[str, datetime | bool | None]:
    if is_missing(value):
        return {"timestamp": None}
    time = read_time(value)
    return {"timestamp": time} if time else {"timestamp": None, UNREAD_TIME: True}


def _prompt(value: object) -> object:
    """Return a text as it is, and the text of a chat that the assistant answers next."""
    chat = parse_chat(value)
    if not isinstance(chat, list) or not chat:
        return value
    messages = read_messages(chat)
    if messages[-1]["role"] == "assistant":
        raise RejectedError(Reason.NOT_A_CHAT)
    text = write_prompt(messages)
    if r"\u0000" in text and any("\0" in message["content"] for message in messages):
        raise RejectedError(Reason.INVALID_TEXT)  # JSON writes it as an escape
    return text


def _response(value: object) -> object:
    """Return a text as it is, and the content of a single message of an assistant."""
    chat = parse_chat(value)
    if isinstance(chat, list) and len(chat) == 1:
        chat = chat[0]
    if not isinstance(chat, dict):
        return value
    message = read_messages([chat])[0]
    if isinstance(value, str) and message["role"] != "assistant":
        return value  # the response itself is JSON
    if calls_tool(chat):
        raise RejectedError(Reason.TOOL_CALL)
    return message["content"]


def _text(value: object, reason_if_missing: Reason) -> str:
    if not isinstance(value, str):
        missing = value == [] or is_missing(value)
        raise RejectedError(reason_if_missing if missing else Reason.NOT_TEXT)
    if "\0" in value or (not value.isascii() and LONE_SURROGATE.search(value)):
        raise RejectedError(Reason.INVALID_TEXT)
    if is_blank(value):
        raise RejectedError(reason_if_missing)
    return value


def _rating(record: Mapping[str, Any], ratings: Sequence[RatingParams]) -> dict[str, Any]:
    for rating in ratings:
        value = look_up(record, rating.column)
        if value is None or (is_missing(value) and not _is_word(value, rating)):
            continue
        return {
            "raw_reward": _to_raw_reward(value, rating),
            "reward_source": rating.column,
            "is_declared": bool(rating.scale or rating.values),
        }
    return dict.fromkeys(("raw_reward", "reward_source", "is_declared"))


def _is_word(value: object, rating: RatingParams) -> bool:
    """Tell whether a word such as ``none`` is one of the declared ratings."""
    return rating.values is not None and rating_word(value) in rating.values


def _to_raw_reward(value: object, rating: RatingParams) -> float:
    if rating.values is not None:
        return _word_value(plain(value), rating.values)
    number = read_number(value)
    if number is None:
        raise RejectedError(Reason.REWARD_NOT_A_NUMBER)
    if not math.isfinite(number):
        raise RejectedError(Reason.REWARD_NOT_FINITE)
    if rating.scale is None:
        if abs(number) > LARGEST_REWARD:
            raise RejectedError(Reason.REWARD_OUT_OF_RANGE)
        return number
    low, high = rating.scale
    if not low <= number <= high:
        raise RejectedError(Reason.REWARD_OFF_SCALE)
    return 2 * (number - low) / (high - low) - 1


def _word_value(value: object, values: Mapping[str, float]) -> float:
    reward = values.get(rating_word(value))
    if reward is None and isinstance(value, bool):  # true counts as the word 1 if that is declared
        reward = values.get(str(int(value)))
    if reward is None:
        raise RejectedError(Reason.REWARD_NOT_A_NUMBER)
    return reward


def _behaviour_logps(value: object) -> float | None:
    if is_missing(value):
        return None
    number = read_number(value)
    if number is None or not math.isfinite(number) or number > 0:
        raise RejectedError(Reason.BAD_BEHAVIOUR_LOGPS)
    return number
