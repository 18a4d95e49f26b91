"""Only new rows are paid for, and nothing but the content decides what is new."""

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.models.logps_cache import cache_key, score_new_rows
from rpo_pipeline.models.scoring import score_table
from tests.conftest import build_small
from tests.training.test_reference import policy


def score(language_model, table, cache, **settings):
    settings = {"micro_batch_tokens": 500, **settings}
    return score_new_rows(language_model, table, policy(), cache, **settings)


def stored(cache):
    """Row ids in the shards, with repetition."""
    shards = [pd.read_parquet(file) for file in cache.glob("*.parquet")]
    return sorted(row_id for shard in shards for row_id in shard["row_id"])


def test_cached_values_are_those_of_scoring_in_the_order_of_the_table(
    language_model, rows, tmp_path
):
    shuffled = rows.sample(frac=1, random_state=2).reset_index(drop=True)
    expected = score_table(language_model, shuffled, policy(), micro_batch_tokens=500)
    for _ in range(2):
        got = score(language_model, shuffled, tmp_path)
        assert got["row_id"].tolist() == expected["row_id"].tolist()
        np.testing.assert_allclose(got["logps"], expected["logps"], rtol=1e-5)
        assert got["num_tokens"].tolist() == expected["num_tokens"].tolist()


def test_a_second_pass_scores_nothing_and_new_rows_cost_what_they_are(rows, tmp_path):
    language_model = build_small("llama")
    score(language_model, rows[:4], tmp_path)
    assert stored(tmp_path) == ["r0", "r1", "r2", "r3"]
    score(language_model, rows[:4], tmp_path)
    score(language_model, rows, tmp_path)
    assert stored(tmp_path) == sorted(rows["row_id"])


def test_an_interrupted_pass_keeps_its_finished_shards(rows, tmp_path):
    language_model = build_small("llama")
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = language_model.model.register_forward_pre_hook(interrupt)
    separate = {"shard_rows": 3, "micro_batch_tokens": 10_000}
    language_model.checked_routes.update(tree=False, cache=False)
    with pytest.raises(KeyboardInterrupt):
        score(language_model, rows, tmp_path, **separate)
    handle.remove()
    assert stored(tmp_path) == ["r0", "r1", "r2"]
    assert len(score(language_model, rows, tmp_path, **separate)) == 6
    assert stored(tmp_path) == sorted(rows["row_id"])


def test_a_prompt_stays_in_one_shard(rows, tmp_path):
    score(build_small("llama"), rows, tmp_path, shard_rows=1)
    shards = [set(pd.read_parquet(file)["row_id"]) for file in tmp_path.glob("*.parquet")]
    assert sorted(map(sorted, shards)) == [["r0", "r1", "r2"], ["r3"], ["r4", "r5"]]


@pytest.fixture
def model(tmp_path):
    build_small("llama").save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "change",
    [{"dtype": "bfloat16"}, {"max_prompt_tokens": 63}, {"max_response_tokens": 63}],
)
def test_precision_and_truncation_are_part_of_the_key(model, change):
    assert cache_key(model, policy(**change)) != cache_key(model, policy())


@pytest.mark.parametrize(
    "change",
    [{"warm_start_learning_rate": 1.0}, {"reset_reference": True}, {"prefix_sharing": "off"}],
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
