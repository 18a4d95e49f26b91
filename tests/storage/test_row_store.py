"""Rows by content: computed once, in shards that survive whatever ends the pass."""

import math
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.storage.row_store import content_key, fetch_rows, missing_rows, prune_cache


class Squares:
    """Computes squares, and remembers of which rows."""

    def __init__(self, keys, dies_after=None):
        self.keys, self.asked, self.left = keys, [], dies_after

    def __call__(self, rows):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        self.asked.append([self.keys[row] for row in rows])
        return pd.DataFrame({"square": [int(self.keys[row]) ** 2 for row in rows]})


def fetch(folder, keys, compute=None, **settings):
    compute = compute or Squares(keys)
    prompt_ids = [f"p{key}" for key in keys]
    stored = fetch_rows(folder, keys, compute, prompt_ids=prompt_ids, verb="square", **settings)
    assert stored.columns.tolist() == ["square"]
    return stored["square"].tolist(), compute


def test_rows_come_in_the_order_of_their_keys_and_equal_keys_are_computed_once(tmp_path):
    squares, compute = fetch(tmp_path, ["3", "1", "3", "2"])
    assert squares == [9, 1, 9, 4]
    assert sorted(*compute.asked) == ["1", "2", "3"]


def test_only_new_keys_are_computed_and_those_that_left_stay_stored(tmp_path):
    fetch(tmp_path, ["1", "2", "3"])
    squares, compute = fetch(tmp_path, ["4", "2", "5"])
    assert (squares, compute.asked) == ([16, 4, 25], [["4", "5"]])
    assert fetch(tmp_path, ["1", "5"])[1].asked == []


def test_an_interrupted_pass_keeps_its_finished_shards(tmp_path):
    keys = [str(number) for number in range(7)]
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, keys, Squares(keys, dies_after=2), shard_rows=2)
    squares, compute = fetch(tmp_path, keys, shard_rows=2)
    assert squares == [number**2 for number in range(7)]
    assert compute.asked == [["4", "5"], ["6"]]


def test_a_shard_that_was_not_put_in_place_does_not_count(tmp_path):
    (tmp_path / ".shard-dead-12345678.parquet").write_bytes(b"half a shar")
    assert fetch(tmp_path, ["2"])[0] == [4]


def test_two_writers_at_once_do_no_harm(tmp_path):
    def another_run_was_quicker(rows):
        fetch(tmp_path, ["1", "2", "3"])
        return pd.DataFrame({"square": [int(keys[row]) ** 2 for row in rows]})

    keys = ["2", "3"]
    assert fetch(tmp_path, keys, another_run_was_quicker)[0] == [4, 9]
    assert fetch(tmp_path, ["1", "2", "3"])[0] == [1, 4, 9]


def test_a_content_key_depends_on_every_number_its_order_and_where_a_list_ends():
    keys = [([1, 2], [3]), ([1], [2, 3]), ([2, 1], [3]), ([1, 2], [3, 0]), ([], [1, 2, 3])]
    assert len({content_key(*parts) for parts in keys}) == len(keys)
    assert content_key([1, 2], [3]) == content_key([1, 2], [3])


def test_every_stored_row_names_its_prompt(tmp_path):
    fetch(tmp_path, ["1", "2"])
    (shard,) = tmp_path.glob("shard-*.parquet")
    stored = pd.read_parquet(shard).set_index("key")["prompt_id"]
    assert stored.to_dict() == {"1": "p1", "2": "p2"}


def test_a_row_without_a_value_is_given_back_and_asked_for_again(tmp_path):
    def roots(keys):
        values = [float(key) ** 0.5 if float(key) >= 0 else np.nan for key in keys]
        return lambda rows: pd.DataFrame({"root": [values[row] for row in rows]})

    keys = ["4", "-1"]
    for _ in range(2):
        found = fetch_rows(tmp_path, keys, roots(keys), prompt_ids=keys, verb="root")["root"]
        np.testing.assert_array_equal(found, [2.0, np.nan])
        assert missing_rows(tmp_path, keys) == [1]
    none = fetch_rows(tmp_path / "empty", ["-1"], roots(["-1"]), prompt_ids=["p"], verb="root")
    assert none["root"].isna().tolist() == [True]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\x00\xff" * 500, "half", "a folder", "other"])
def test_rows_of_a_damaged_shard_are_computed_again_and_the_shard_is_named(
    tmp_path, damage, caplog
):
    fetch(tmp_path, ["1"])
    (whole,) = tmp_path.glob("shard-*.parquet")
    fetch(tmp_path, ["2"])
    (shard,) = {*tmp_path.glob("shard-*.parquet")} - {whole}
    content = shard.read_bytes()
    shard.unlink()
    if damage == "a folder":
        shard.mkdir()
    elif damage == "other":
        pd.DataFrame({"x": [1]}).to_parquet(shard)
    else:
        shard.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    squares, compute = fetch(tmp_path, ["1", "2"])
    assert (squares, compute.asked) == ([1, 4], [["2"]])
    assert f"{shard} cannot be read" in caplog.text
    assert fetch(tmp_path, ["2"])[1].asked == []


def test_the_cache_may_be_pruned_while_another_run_reads_and_writes_it(tmp_path):
    def pruned_meanwhile(rows):
        for shard in tmp_path.glob("shard-*.parquet"):
            shard.unlink()
        return pd.DataFrame({"square": [int(keys[row]) ** 2 for row in rows]})

    fetch(tmp_path, ["1", "2"])
    keys = ["1", "3", "4", "5"]
    assert fetch(tmp_path, keys, pruned_meanwhile, shard_rows=1)[0] == [1, 9, 16, 25]


def test_readers_and_a_pruner_in_processes_of_their_own_never_fail(tmp_path):
    keys = [str(number) for number in range(40)]
    fork = multiprocessing.get_context("fork")

    def read_again_and_again():
        for _ in range(10):
            assert fetch(tmp_path, keys, shard_rows=4)[0] == [n * n for n in range(40)]

    def prune_again_and_again():
        while True:
            prune_cache(tmp_path, max_bytes=0, max_age_days=0, in_use_since=math.inf)

    pruner = fork.Process(target=prune_again_and_again, daemon=True)
    readers = [fork.Process(target=read_again_and_again) for _ in range(2)]
    for process in (pruner, *readers):
        process.start()
    for reader in readers:
        reader.join(60)
    pruner.kill()
    assert [reader.exitcode for reader in readers] == [0, 0]
