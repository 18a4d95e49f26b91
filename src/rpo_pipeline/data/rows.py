"""One record of a source, checked and turned into a row."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from rpo_pipeline.data.formats import RATINGS, REWARD, expand, shape_of
from rpo_pipeline.data.quarantine import Reason, RejectedError
from rpo_pipeline.params import RatingParams, SourceParams

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
SECONDS_SINCE_1970 = 1e11
"""Larger numbers, from the year 5138 on, are milliseconds."""
EPOCH = re.compile(r"\d{9,13}(\.\d+)?")
"""Shorter runs of digits are years and dates."""


def prompt_key(prompt: str) -> str:
    """Content hash of a prompt: 32 hexadecimal digits, the same on every machine."""
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


def row_key(prompt: str, response: str) -> str:
    """Content hash of a (prompt, response) pair; no two pairs run together."""
    digest = hashlib.blake2b(prompt_key(prompt).encode(), digest_size=16)
    digest.update(response.encode())
    return digest.hexdigest()


def parse_record(
    record: Mapping[str, Any], source: SourceParams
) -> Iterator[dict[str, Any] | RejectedError]:
    """Turn a record of any shape into checked rows.

    Args:
        record: Fields by the source's names.
        source: Format, column names and ratings of the source.

    Yields:
        For each response the columns of ``ROW_SCHEMA``, without origin and position, or why it
        cannot be used.
    """
    named = {**record, **{our: record.get(their) for our, their in source.columns.items()}}
    shape = shape_of(named) if source.format == "auto" else source.format
    ratings = source.ratings or RATINGS.get(shape, REWARD)
    for fields in expand(named, shape):
        if isinstance(fields, RejectedError):
            yield fields
            continue
        try:
            yield _row(fields, ratings)
        except RejectedError as rejected:
            yield rejected


def _row(fields: Mapping[str, Any], ratings: Sequence[RatingParams]) -> dict[str, Any]:
    prompt = _text(fields.get("prompt"), Reason.MISSING_PROMPT)
    response = _text(fields.get("response"), Reason.MISSING_RESPONSE)
    raw_reward, reward_source = _rating(fields, ratings)
    prompt_id = prompt_key(prompt)
    model_version = fields.get("model_version")
    return {
        "row_id": row_key(prompt, response),
        "prompt_id": prompt_id,
        "prompt": prompt,
        "response": response,
        "raw_reward": raw_reward,
        "reward_source": reward_source,
        "timestamp": _timestamp(fields.get("timestamp")),
        "model_version": None if _is_missing(model_version) else str(model_version),
        "behaviour_logps": _behaviour_logps(fields.get("behaviour_logps")),
        "split_point": int(prompt_id[:13], 16) / 16**13,
    }


def _is_missing(value: object) -> bool:
    return value is None or value == ""


def _text(value: object, reason_if_missing: Reason) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RejectedError(reason_if_missing)
    if not isinstance(value, str):
        raise RejectedError(Reason.NOT_TEXT)
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise RejectedError(Reason.INVALID_TEXT) from err
    if "\0" in value:
        raise RejectedError(Reason.INVALID_TEXT)
    return value


def _rating(
    record: Mapping[str, Any], ratings: Sequence[RatingParams]
) -> tuple[float | None, str | None]:
    for rating in ratings:
        value = record.get(rating.column)
        if not _is_missing(value):
            return _to_raw_reward(value, rating), rating.column
    return None, None


def _to_raw_reward(value: object, rating: RatingParams) -> float:
    if rating.values is not None:
        word = str(value).lower() if isinstance(value, bool) else str(value)
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
    if isinstance(value, bool) or not isinstance(value, int | float | str):
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
    if _is_missing(value):
        return None
    try:
        if isinstance(value, datetime):
            time = value
        elif isinstance(value, int | float) or EPOCH.fullmatch(str(value)):
            number = float(value)  # type: ignore[arg-type]
            time = datetime.fromtimestamp(
                number / 1000 if number > SECONDS_SINCE_1970 else number, tz=UTC
            )
        else:
            time = datetime.fromisoformat(str(value))
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError) as err:
        raise RejectedError(Reason.BAD_TIMESTAMP) from err
    return time
