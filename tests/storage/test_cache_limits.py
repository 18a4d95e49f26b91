"""A cache stays within its limits, and what is in use stays in it."""

import os
import time

import pytest

from rpo_pipeline.storage.row_store import prune_cache

DAY = 86_400


@pytest.fixture
def cache(tmp_path):
    """Shards of 100 bytes, last used 1 to 5 days ago, in two folders."""
    for days in range(1, 6):
        file = tmp_path / f"logps-{days % 2}" / f"shard-{days}.parquet"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 100)
        os.utime(file, (0, time.time() - days * DAY))
    (tmp_path / "notes.txt").write_text("x" * 999)
    return tmp_path


def left(cache):
    return sorted(int(file.stem[-1]) for file in cache.rglob("shard-*"))


def prune(cache, *, max_bytes=1e9, max_age_days=99, used_within_days=0):
    since = time.time() - used_within_days * DAY
    limits = {"max_bytes": max_bytes, "max_age_days": max_age_days, "in_use_since": since}
    return prune_cache(cache, **limits)


def test_shards_that_nobody_asked_for_in_a_long_time_go(cache):
    assert prune(cache, max_age_days=3.5) == (2, 200)
    assert left(cache) == [1, 2, 3]


def test_the_least_recently_used_go_until_the_rest_fits_and_other_files_stay(cache):
    assert prune(cache, max_bytes=250) == (3, 300)
    assert left(cache) == [1, 2]
    assert (cache / "notes.txt").exists()


def test_what_the_present_run_uses_never_goes_and_is_said_to_be_too_much(cache, caplog):
    prune(cache, max_bytes=0, max_age_days=0, used_within_days=2.5)
    assert left(cache) == [1, 2]
    assert "all is in use" in caplog.text


def test_within_its_limits_nothing_goes(cache):
    assert prune(cache) == (0, 0)
    assert left(cache) == [1, 2, 3, 4, 5]
