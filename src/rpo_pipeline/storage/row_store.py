"""Caches expensive rows by content in a folder of shards, each of which is written atomically.

A killed pass resumes after the last complete shard, and two writers at once only compute rows
twice. Each row names the prompt that it was computed for, and is erased with it. The modification
time of a shard is the time of its last use, by which ``prune_cache`` keeps a cache within limits.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rpo_pipeline.storage.durable import DAMAGED, first_line, replacing
from rpo_pipeline.storage.places import files_below

logger = logging.getLogger(__name__)

SHARD_ROWS = 256
SHARDS = "shard-*.parquet"
SECONDS_OF_A_DAY = 86_400


def content_key(*parts: Sequence[int]) -> str:
    """Hash lists of numbers, such as token ids, with their lengths: 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(np.asarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()


def fetch_rows(
    folder: Path,
    keys: Sequence[str],
    compute: Callable[[list[int]], pd.DataFrame],
    *,
    prompt_ids: Sequence[str],
    verb: str,
    shard_rows: int = SHARD_ROWS,
) -> pd.DataFrame:
    """Read stored rows, and compute and store the others shard by shard.

    Rows of a shard that is damaged, or that another process removes meanwhile, are computed again.

    Args:
        folder: Folder of the shards, named by everything that decides the rows beside their keys.
        keys: Content key of each row; rows with equal keys are computed once.
        compute: Function from positions in ``keys`` to one line of values each, in that order. A
            line without any value is returned but not stored, so it is computed again next time.
        prompt_ids: Prompt of each row; one of them is stored for rows with equal keys.
        verb: What ``compute`` does, for the log.
        shard_rows: Number of rows computed between two writes.

    Returns:
        The values, in the order of the keys.
    """
    stored = _load(folder)
    missing = _missing(stored, keys)
    logger.info("%d rows to %s, %d in the cache", len(missing), verb, len(keys) - len(missing))
    if missing:
        distinct, computed = list({keys[row]: row for row in missing}.values()), []
        with tqdm(total=len(distinct), desc=verb, unit="row", disable=None) as bar:
            for start in range(0, len(distinct), shard_rows):
                shard = distinct[start : start + shard_rows]
                values = compute(shard)
                rows = values.assign(
                    key=[keys[row] for row in shard],
                    prompt_id=[prompt_ids[row] for row in shard],
                )
                known = values.notna().any(axis=1).to_numpy()
                if known.any():
                    computed.append(_save(folder, rows[known]).set_index("key"))
                bar.update(len(shard))
        # The shards are not read again, because another process may remove them meanwhile.
        found = [table for table in (stored, *computed) if not table.empty]
        stored = pd.concat(found) if found else stored
        if stored.empty:  # no row has ever had a value
            stored = stored.reindex(columns=stored.columns.union(values.columns))
    asked_for = stored.reindex(list(keys))
    _note_use(folder, asked_for["shard"].dropna().unique())
    return asked_for.drop(columns=["shard", "prompt_id"]).reset_index(drop=True)


def _note_use(folder: Path, shards: Iterable[str]) -> None:
    for shard in shards:
        with suppress(FileNotFoundError, PermissionError):  # removed, or owned by another user
            os.utime(folder / shard)


def missing_rows(folder: Path, keys: Sequence[str]) -> list[int]:
    """Return the positions of the keys that are not stored in a folder."""
    return _missing(_load(folder), keys)


def _missing(stored: pd.DataFrame, keys: Sequence[str]) -> list[int]:
    return [row for row, key in enumerate(keys) if key not in stored.index]


def _load(folder: Path) -> pd.DataFrame:
    shards = [_read(file) for file in sorted(folder.glob(SHARDS))]
    found = [shard for shard in shards if shard is not None]
    rows = pd.concat(found) if found else pd.DataFrame(columns=["key", "prompt_id", "shard"])
    return rows.drop_duplicates("key").set_index("key")


def _read(file: Path) -> pd.DataFrame | None:
    """Read a shard; the result is None if it was removed meanwhile or cannot be read."""
    try:
        with file.open("rb") as stream:
            return pd.read_parquet(stream).dropna(subset="key").assign(shard=file.name)
    except FileNotFoundError:
        return None
    except (*DAMAGED, KeyError) as err:
        logger.warning(
            "%s cannot be read (%s): what was in it is computed again; remove it",
            file,
            first_line(err),
        )
        return None


def _save(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Store rows as a shard, and return them as they will be read."""
    target = folder / f"shard-{uuid4().hex}.parquet"
    table = pa.Table.from_pandas(rows, preserve_index=False)
    with replacing(target) as prepared:
        pq.write_table(table, prepared)
    stored: pd.DataFrame = table.to_pandas()
    return stored.assign(shard=target.name)


class Pruned(NamedTuple):
    """Number and size of the removed shards."""

    num_shards: int
    num_bytes: int


def prune_cache(
    cache: Path, *, max_bytes: float, max_age_days: float, in_use_since: float
) -> Pruned:
    """Remove shards, at any depth, that were not used for long, then the least recently used ones.

    A shard that was used after ``in_use_since`` (seconds since 1970) is never removed.
    """
    now, removed = time.time(), []
    shards = []
    for file in files_below(cache, SHARDS):
        with suppress(FileNotFoundError):  # pruned by another process
            status = file.stat()
            shards.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in shards)
    for used, size, file in sorted(shards):
        is_old = now - used > max_age_days * SECONDS_OF_A_DAY
        if used < in_use_since and (is_old or total > max_bytes):
            file.unlink(missing_ok=True)
            total -= size
            removed.append(size)
    if total > max_bytes:
        logger.warning(
            "the cache in %s takes %.2f GB: more than caches.max_gigabytes, but all is in use",
            cache,
            total / 1e9,
        )
    return Pruned(len(removed), sum(removed))
