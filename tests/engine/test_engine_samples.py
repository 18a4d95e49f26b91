"""Numbered samples: only new ones are drawn."""

import pandas as pd
import pytest

from rpo_pipeline.engine.engine import Engine
from tests.conftest import block, build_small
from tests.training.test_reference import policy


@pytest.fixture
def prompts():
    return pd.DataFrame(
        {
            "prompt_id": ["p0", "p1", "p2"],
            "prompt": ["Help!", "Hello, my kettle leaks. Can you help?", "Hi"],
        }
    )


def draw(language_model, prompts, cache, num_samples=3):
    model = cache.parent / "model"
    language_model.save(model)
    engine = Engine(
        model, policy(max_response_tokens=12), block("training", micro_batch_tokens=500), cache
    )
    return engine.sample_each(prompts, num_samples)


def stored(cache):
    return [key for file in cache.rglob("*.parquet") for key in pd.read_parquet(file)["key"]]


def tokens_of(samples):
    return [list(map(int, ids)) for ids in samples["token_ids"]]


def test_each_prompt_gets_its_samples_as_token_ids_that_end_or_reach_the_limit(
    language_model, prompts, tmp_path
):
    samples = draw(language_model, prompts, tmp_path / "cache")
    assert samples["prompt_id"].tolist() == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert samples["sample"].tolist() == [0, 1, 2] * 3
    tokenizer = language_model.tokenizer
    for ids, text in zip(tokens_of(samples), samples["response"], strict=True):
        assert len(ids) == 12 or ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_samples_of_one_prompt_differ(prompts, tmp_path):
    samples = draw(build_small("llama"), prompts[:1], tmp_path / "cache", num_samples=6)
    assert len(set(map(tuple, tokens_of(samples)))) > 1


def test_a_sample_depends_on_its_prompt_and_number_not_on_what_was_drawn_beside_it(
    prompts, tmp_path
):
    language_model = build_small("llama")
    together = draw(language_model, prompts, tmp_path / "together")
    renamed = prompts.assign(prompt_id=["a", "b", "c"])[::-1]
    apart = pd.concat(
        draw(language_model, renamed[row : row + 1], tmp_path / f"apart{row}") for row in range(3)
    )
    by_number = apart.set_index(["prompt", "sample"]).loc[
        list(zip(together["prompt"], together["sample"], strict=True))
    ]
    assert tokens_of(by_number) == tokens_of(together)


def test_more_samples_and_new_prompts_cost_what_they_are(prompts, tmp_path):
    language_model = build_small("llama")
    first = draw(language_model, prompts[:2], tmp_path / "cache", num_samples=2)
    assert len(stored(tmp_path / "cache")) == 4
    more = draw(language_model, prompts, tmp_path / "cache", num_samples=3)
    assert len(stored(tmp_path / "cache")) == len(set(stored(tmp_path / "cache"))) == 9
    old = more[(more["sample"] < 2) & (more["prompt_id"] != "p2")]
    assert tokens_of(old) == tokens_of(first)
