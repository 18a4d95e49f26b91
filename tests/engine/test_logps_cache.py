"""Only new rows are paid for, and their tokens decide what is new."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.engine.logps_cache import cache_key, score_new_rows
from rpo_pipeline.engine.row_scoring import score_table
from rpo_pipeline.engine.samples_cache import samples_key
from rpo_pipeline.storage import freshness
from tests.conftest import ROOT, build_small
from tests.training.test_reference import policy


def score(language_model, table, cache, **settings):
    settings = {"micro_batch_tokens": 500, **settings}
    return score_new_rows(language_model, table, policy(), cache, **settings)


def stored(cache):
    """Keys in the shards, with repetition."""
    return [key for file in cache.glob("*.parquet") for key in pd.read_parquet(file)["key"]]


def test_cached_values_are_those_of_scoring_in_the_order_of_the_table(
    language_model, rows, tmp_path
):
    shuffled = rows.sample(frac=1, random_state=2)
    expected = score_table(
        language_model, shuffled.reset_index(drop=True), policy(), micro_batch_tokens=500
    )
    for _ in range(2):
        got = score(language_model, shuffled, tmp_path)
        assert got["row_id"].tolist() == expected["row_id"].tolist()
        np.testing.assert_allclose(got["logps"], expected["logps"], rtol=1e-5)
        assert got["num_tokens"].tolist() == expected["num_tokens"].tolist()


@pytest.fixture
def counted():
    """A model and the number of its forward passes."""
    language_model = build_small("llama")
    passes = []
    language_model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    return language_model, passes


def test_a_second_pass_runs_the_model_on_nothing(counted, rows, tmp_path):
    language_model, passes = counted
    first = score(language_model, rows, tmp_path)
    passes.clear()
    pd.testing.assert_frame_equal(score(language_model, rows, tmp_path), first)
    assert passes == []


def test_new_rows_cost_what_they_are_wherever_they_stand(counted, rows, tmp_path):
    language_model, _ = counted
    score(language_model, rows[rows["row_id"] != "r1"], tmp_path)
    assert len(stored(tmp_path)) == 5
    score(language_model, rows, tmp_path)
    assert len(stored(tmp_path)) == len(set(stored(tmp_path))) == 6


def test_names_of_rows_and_prompts_are_no_part_of_their_content(counted, rows, tmp_path):
    language_model, passes = counted
    score(language_model, rows, tmp_path)
    passes.clear()
    renamed = rows.assign(row_id="x" + rows["row_id"], prompt_id="y" + rows["prompt_id"])
    assert score(language_model, renamed, tmp_path)["row_id"].tolist() == renamed["row_id"].tolist()
    assert passes == []


def test_a_response_to_another_prompt_is_another_row(counted, rows, tmp_path):
    language_model, _ = counted
    swapped = rows.assign(prompt=rows["prompt"].iloc[::-1].to_numpy(), prompt_id=rows["row_id"])
    first = score(language_model, rows, tmp_path)["logps"]
    assert not np.isclose(score(language_model, swapped, tmp_path)["logps"], first).any()
    assert len(set(stored(tmp_path))) == 12


KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from rpo_pipeline.storage import freshness
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.engine.logps_cache import score_new_rows
from rpo_pipeline.params import PolicyParams

folder = Path(sys.argv[1])
language_model = load_language_model(folder / "model", prefix_sharing="off")
passes = []

def die(*_):
    passes.append(1)
    if len(passes) == 3 + 4:  # three of them see whether rows score as they would alone
        os.kill(os.getpid(), signal.SIGKILL)

language_model.model.register_forward_pre_hook(die)
score_new_rows(
    language_model,
    pd.read_parquet(folder / "rows.parquet"),
    PolicyParams.model_validate_json((folder / "policy.json").read_text()),
    folder / "cache",
    micro_batch_tokens=1,
    shard_rows=2,
)
"""


def test_a_pass_killed_in_the_middle_keeps_its_shards_and_ends_like_one_that_was_not(
    rows, tmp_path
):
    """Row by row, two rows a shard: the fourth forward pass dies in the second shard."""
    build_small("llama").save(tmp_path / "model")
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "policy.json").write_text(policy().model_dump_json())
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -9
    kept = stored(tmp_path / "cache")
    assert len(kept) == 2
    language_model = load_language_model(tmp_path / "model", prefix_sharing="off")
    settings = {"shard_rows": 2, "micro_batch_tokens": 1}
    resumed = score(language_model, rows, tmp_path / "cache", **settings)
    unkilled = score(language_model, rows, tmp_path / "other", **settings)
    pd.testing.assert_frame_equal(resumed, unkilled)
    assert sorted(stored(tmp_path / "cache")) == sorted(stored(tmp_path / "other"))


@pytest.fixture
def model(tmp_path):
    build_small("llama").save(tmp_path / "model")
    return tmp_path / "model"


def test_precision_is_part_of_the_key(model):
    assert cache_key(model, policy(dtype="bfloat16")) != cache_key(model, policy())


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers"])
def test_an_upgrade_of_what_computes_them_scores_again(model, monkeypatch, library):
    versions = freshness.installed_version
    before = cache_key(model, policy()), samples_key(model, policy())
    monkeypatch.setattr(
        freshness, "installed_version", lambda name: "99" if name == library else versions(name)
    )
    assert cache_key(model, policy()) != before[0]
    assert samples_key(model, policy()) != before[1]


@pytest.mark.parametrize(
    "change",
    [
        {"warm_start_learning_rate": 1.0},
        {"reset_reference": True},
        {"prefix_sharing": "off"},
        {"max_prompt_tokens": 63},  # where a text is cut decides its tokens, which name the row
    ],
)
def test_what_does_not_change_a_log_probability_is_not(model, change):
    assert cache_key(model, policy(**change)) == cache_key(model, policy())


def test_weights_and_tokenizer_are_part_of_the_key_and_notes_beside_them_are_not(model, tmp_path):
    key = cache_key(model, policy())
    (model / "origin.json").write_text("{}")
    assert cache_key(model, policy()) == key
    build_small("llama", seed=1).save(tmp_path / "other")
    assert cache_key(tmp_path / "other", policy()) != key
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert cache_key(model, policy()) != key
