"""Keeps a folder of shards (``row_store``) within its limits."""

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rpo_pipeline.storage.places import files_below
from rpo_pipeline.storage.row_store import SHARDS

logger = logging.getLogger(__name__)

SECONDS_OF_A_DAY = 86_400


class Pruned(NamedTuple):
    """Number and size of the removed shards."""

    num_shards: int
    num_bytes: int


def prune_cache(
    cache: Path, *, max_bytes: float, max_age_days: float, in_use_since: float
) -> Pruned:
    """Remove shards that were not used for long, and then the least recently used ones.

    Args:
        cache: Folder with shards at any depth.
        max_bytes: Largest size of all shards.
        max_age_days: Days without use after which a shard is removed.
        in_use_since: Time in seconds since 1970; a shard used later is never removed.

    Returns:
        Number and size of the removed shards.
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
