"""One record of a source, checked and turned into a row."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rpo_pipeline.data.chats import parse_prompt, read_messages, write_prompt
from rpo_pipeline.data.quarantine import Reason, RejectedError
from rpo_pipeline.data.redaction import Privacy
from rpo_pipeline.params import RatingParams, SourceParams, rating_word

EPOCH = re.compile(r"\d{9,}(\.\d*)?")
"""A number since 1970; eight digits are a date."""
NUMBERS = (int, float, str, Decimal)

ROW_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("raw_reward", pa.float64()),
        ("reward_source", pa.string()),
        ("origin", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("model_version", pa.string()),
        ("behaviour_logps", pa.float64()),
        ("split_point", pa.float64()),  # uniform in [0, 1), from the prompt alone
        ("position", pa.int64()),  # order of reading
    ]
)

RATING_SCHEMA = pa.schema(
    [
        ("response_id", pa.string()),
        ("raw_reward", pa.float64()),
        ("reward_source", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("origin", pa.string()),
    ]
)


def prompt_key(prompt: str) -> str:
    """Content hash of a prompt: 32 hexadecimal digits, the same on every machine."""
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


def row_key(prompt: str, response: str) -> str:
    """Content hash of a (prompt, response) pair; no two pairs run together."""
    return _row_key(prompt_key(prompt), response)


def _row_key(prompt_id: str, response: str) -> str:
    digest = hashlib.blake2b(prompt_id.encode(), digest_size=16)
    digest.update(response.encode())
    return digest.hexdigest()


NOTHING_PRIVATE = Privacy()


def parse_record(
    record: Mapping[str, Any], source: SourceParams, privacy: Privacy = NOTHING_PRIVATE
) -> dict[str, Any]:
    """Check a flat record and turn it into a row.

    Args:
        record: One prompt, response and rating, by our names (``formats.flatten``).
        source: Ratings of the source.
        privacy: What is redacted before anything is hashed, and which prompts are forgotten.

    Returns:
        The columns of ``ROW_SCHEMA``, without origin and position, and ``response_id`` (null
        without ``source.key``).

    Raises:
        RejectedError: If the record cannot be used; whatever else is wrong with it, as
            ``forgotten`` if its prompt is, so that its text is not kept.
    """
    prompt = privacy.redact_prompt(_text(_prompt(record.get("prompt")), Reason.MISSING_PROMPT))
    prompt_id = prompt_key(prompt)
    if prompt_id in privacy.forgotten:
        raise RejectedError(Reason.FORGOTTEN)
    response = privacy.redact(_text(_response(record.get("response")), Reason.MISSING_RESPONSE))
    raw_reward, reward_source = _rating(record, source.rating_columns)
    return {
        "row_id": _row_key(prompt_id, response),
        "prompt_id": prompt_id,
        "prompt": prompt,
        "response": response,
        "raw_reward": raw_reward,
        "reward_source": reward_source,
        "timestamp": _timestamp(record.get("timestamp")),
        "model_version": _model_version(record.get("model_version")),
        "behaviour_logps": _behaviour_logps(record.get("behaviour_logps")),
        "split_point": int(prompt_id[:13], 16) / 16**13,
        "response_id": _response_id(record, source),
    }


def parse_rating(record: Mapping[str, Any], source: SourceParams) -> dict[str, Any]:
    """Check a record of a ratings file.

    Args:
        record: By the source's names.
        source: Its key, columns and ratings.

    Returns:
        The columns of ``RATING_SCHEMA``, without origin.

    Raises:
        RejectedError: If it names no response or holds no rating, or one that cannot be used.
    """
    response_id = _response_id(record, source)
    if response_id is None:
        raise RejectedError(Reason.UNKNOWN_RESPONSE)
    raw_reward, reward_source = _rating(record, source.rating_columns)
    if raw_reward is None:
        raise RejectedError(Reason.MISSING_RATING)
    return {
        "response_id": response_id,
        "raw_reward": raw_reward,
        "reward_source": reward_source,
        "timestamp": _timestamp(look_up(record, source.columns.get("timestamp", "timestamp"))),
    }


def _response_id(record: Mapping[str, Any], source: SourceParams) -> str | None:
    value = look_up(record, source.key) if source.key else None
    text = "" if value is None else str(value).strip()
    return _text(text, Reason.INVALID_TEXT) if text else None


def look_up(record: Mapping[str, Any], name: str) -> object:
    """A field by its name, or by a path of names with dots between them."""
    if name in record or "." not in name:
        return record.get(name)
    value: object = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_missing(value: object) -> bool:
    return value is None or value == ""


def _prompt(value: object) -> object:
    """A text, or the text of a chat that waits for the assistant."""
    chat = parse_prompt(value) if isinstance(value, str) else value
    if not isinstance(chat, list) or not chat:
        return value
    messages = read_messages(chat)
    if messages[-1]["role"] == "assistant":
        raise RejectedError(Reason.NOT_A_CHAT)
    if any("\0" in text for message in messages for text in message.values()):
        raise RejectedError(Reason.INVALID_TEXT)  # JSON would write it as an escape
    return write_prompt(messages)


def _response(value: object) -> object:
    """A text, or the one message of an assistant."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return read_messages([value])[0]["content"] if isinstance(value, dict) else value


def _text(value: object, reason_if_missing: Reason) -> str:
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise RejectedError(reason_if_missing)
    if not isinstance(value, str):
        raise RejectedError(Reason.NOT_TEXT)
    if "\0" in value or not (value.isascii() or _is_valid(value)):
        raise RejectedError(Reason.INVALID_TEXT)
    return value


def _is_valid(text: str) -> bool:
    """Whether a text is free of lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _model_version(value: object) -> str | None:
    text = "" if value is None else str(value)
    return _text(text, Reason.INVALID_TEXT) if text.strip() else None


def _rating(
    record: Mapping[str, Any], ratings: Sequence[RatingParams]
) -> tuple[float | None, str | None]:
    for rating in ratings:
        value = look_up(record, rating.column)
        if not _is_missing(value):
            return _to_raw_reward(value, rating), rating.column
    return None, None


def _to_raw_reward(value: object, rating: RatingParams) -> float:
    if rating.values is not None:
        word = rating_word(value)
        if word not in rating.values:
            raise RejectedError(Reason.REWARD_NOT_A_NUMBER)
        return rating.values[word]
    number = _number(value, Reason.REWARD_NOT_A_NUMBER)
    if not math.isfinite(number):
        raise RejectedError(Reason.REWARD_NOT_FINITE)
    if rating.scale is None:
        return number
    low, high = rating.scale
    if not low <= number <= high:
        raise RejectedError(Reason.REWARD_OFF_SCALE)
    return 2 * (number - low) / (high - low) - 1


def _number(value: object, reason: Reason) -> float:
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise RejectedError(reason)
    if isinstance(value, str) and "_" in value:  # Python's way of writing 1000 as 1_000
        raise RejectedError(reason)
    try:
        return float(value)
    except (ValueError, OverflowError) as err:
        raise RejectedError(reason) from err


def _behaviour_logps(value: object) -> float | None:
    if _is_missing(value):
        return None
    number = _number(value, Reason.BAD_BEHAVIOUR_LOGPS)
    if not math.isfinite(number) or number > 0:
        raise RejectedError(Reason.BAD_BEHAVIOUR_LOGPS)
    return number


def _timestamp(value: object) -> datetime | None:
    """An instant from ISO 8601 (UTC unless it names a zone), or from a number since 1970."""
    if _is_missing(value):
        return None
    try:
        if isinstance(value, NUMBERS) and EPOCH.fullmatch(str(value).strip()):
            return _since_1970(float(value))
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError) as err:
        raise RejectedError(Reason.BAD_TIMESTAMP) from err


def _since_1970(number: float) -> datetime:
    """Seconds, milli-, micro- or nanoseconds: what puts the instant between 1973 and 5138."""
    for unit in (1, 1e3, 1e6, 1e9):
        if 1e8 <= number / unit < 1e11:
            return datetime.fromtimestamp(number / unit, UTC)
    raise RejectedError(Reason.BAD_TIMESTAMP)
