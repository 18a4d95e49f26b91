"""Only new rows are paid for, and their tokens decide what is new."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.engine.engine import Engine
from tests.conftest import ROOT, block, build_small, score_table
from tests.training.test_reference import policy


def engine_of(language_model, folder, cache="cache", micro_batch_tokens=500, **settings):
    """An engine over a saved model."""
    language_model.save(folder / "model")
    training = block("training", micro_batch_tokens=micro_batch_tokens)
    return Engine(folder / "model", policy(), training, cache and folder / cache, **settings)


def stored(folder):
    """Keys in the shards below a folder, with repetition."""
    return [key for file in folder.rglob("*.parquet") for key in pd.read_parquet(file)["key"]]


@pytest.mark.parametrize("shard_rows", [1, 2, 256])
def test_cached_values_are_those_of_scoring_in_the_order_of_the_table(
    language_model, rows, tmp_path, shard_rows
):
    shuffled = rows.sample(frac=1, random_state=2)
    expected = score_table(language_model, shuffled.reset_index(drop=True))
    engine = engine_of(language_model, tmp_path, shard_rows=shard_rows)
    for _ in range(2):
        got = engine.logps(shuffled)
        assert got["row_id"].tolist() == expected["row_id"].tolist()
        np.testing.assert_allclose(got["logps"], expected["logps"], rtol=1e-5)
        assert got["num_tokens"].tolist() == expected["num_tokens"].tolist()


def test_without_a_cache_nothing_is_kept_and_the_values_are_those_of_one_pass(rows, tmp_path):
    language_model = build_small("llama")
    shuffled = rows.sample(frac=1, random_state=2)
    expected = score_table(language_model, shuffled.reset_index(drop=True))
    got = engine_of(language_model, tmp_path, cache=None).logps(shuffled)
    pd.testing.assert_frame_equal(got[expected.columns], expected)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.fixture
def counted(tmp_path):
    """An engine and the number of its forward passes."""
    engine = engine_of(build_small("llama"), tmp_path)
    passes = []
    engine.language_model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    return engine, passes


def test_a_second_pass_runs_the_model_on_nothing(counted, rows):
    engine, passes = counted
    first = engine.logps(rows)
    passes.clear()
    pd.testing.assert_frame_equal(engine.logps(rows), first)
    assert passes == []


def test_new_rows_cost_what_they_are_wherever_they_stand(counted, rows, tmp_path):
    engine, _ = counted
    engine.logps(rows[rows["row_id"] != "r1"])
    assert len(stored(tmp_path)) == 5
    engine.logps(rows)
    assert len(stored(tmp_path)) == len(set(stored(tmp_path))) == 6


def test_names_of_rows_and_prompts_are_no_part_of_their_content(counted, rows):
    engine, passes = counted
    engine.logps(rows)
    passes.clear()
    renamed = rows.assign(row_id="x" + rows["row_id"], prompt_id="y" + rows["prompt_id"])
    assert engine.logps(renamed)["row_id"].tolist() == renamed["row_id"].tolist()
    assert passes == []


def test_a_response_to_another_prompt_is_another_row(counted, rows, tmp_path):
    engine, _ = counted
    swapped = rows.assign(prompt=rows["prompt"].iloc[::-1].to_numpy(), prompt_id=rows["row_id"])
    first = engine.logps(rows)["logps"]
    assert not np.isclose(engine.logps(swapped)["logps"], first).any()
    assert len(set(stored(tmp_path))) == 12


def test_other_weights_in_the_same_folder_are_scored_anew(counted, rows, tmp_path):
    engine, _ = counted
    first = engine.logps(rows)["logps"]
    other = engine_of(build_small("llama", seed=1), tmp_path)
    assert not np.isclose(other.logps(rows)["logps"], first).any()
    assert len(stored(tmp_path)) == 12


def test_a_released_model_is_loaded_again_and_scores_the_same(rows, tmp_path):
    with engine_of(build_small("llama"), tmp_path, cache=None) as engine:
        loaded, first = engine.language_model, engine.logps(rows)
    assert engine.language_model is not loaded
    pd.testing.assert_frame_equal(engine.logps(rows), first)


KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from rpo_pipeline.engine import Engine
from rpo_pipeline.params import PolicyParams, TrainingParams

folder = Path(sys.argv[1])
policy = PolicyParams.model_validate_json((folder / "policy.json").read_text())
training = TrainingParams.model_validate_json((folder / "training.json").read_text())
engine = Engine(folder / "model", policy, training, folder / "cache", shard_rows=2)
passes = []

def die(*_):
    passes.append(1)
    if len(passes) == 3 + 4:  # three of them see whether rows score as they would alone
        os.kill(os.getpid(), signal.SIGKILL)

engine.language_model.model.register_forward_pre_hook(die)
engine.logps(pd.read_parquet(folder / "rows.parquet"))
"""


def test_a_pass_killed_in_the_middle_keeps_its_shards_and_ends_like_one_that_was_not(
    rows, tmp_path
):
    """Row by row, two rows a shard: the fourth forward pass dies in the second shard."""
    build_small("llama").save(tmp_path / "model")
    rows.to_parquet(tmp_path / "rows.parquet")
    row_by_row = policy(prefix_sharing="off")
    one_by_one = block("training", micro_batch_tokens=1)
    (tmp_path / "policy.json").write_text(row_by_row.model_dump_json())
    (tmp_path / "training.json").write_text(one_by_one.model_dump_json())
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -9
    kept = stored(tmp_path / "cache")
    assert len(kept) == 2
    resumed, unkilled = (
        Engine(tmp_path / "model", row_by_row, one_by_one, tmp_path / cache, shard_rows=2).logps(
            rows
        )
        for cache in ("cache", "other")
    )
    pd.testing.assert_frame_equal(resumed, unkilled)
    assert sorted(stored(tmp_path / "cache")) == sorted(stored(tmp_path / "other"))
