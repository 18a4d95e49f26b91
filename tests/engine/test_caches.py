"""What the names of a cache's folders depend on."""

import pytest

from rpo_pipeline.engine.engine import logps_key, samples_key
from rpo_pipeline.storage import freshness
from tests.conftest import build_small
from tests.training.test_reference import policy


@pytest.fixture
def model(tmp_path):
    build_small("llama").save(tmp_path / "model")
    return tmp_path / "model"


def test_precision_is_part_of_the_key(model):
    assert logps_key(model, policy(dtype="bfloat16")) != logps_key(model, policy())


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers"])
def test_an_upgrade_of_what_computes_them_scores_again(model, monkeypatch, library):
    versions = freshness.installed_version
    before = logps_key(model, policy()), samples_key(model, policy(), 1.0)
    monkeypatch.setattr(
        freshness, "installed_version", lambda name: "99" if name == library else versions(name)
    )
    assert logps_key(model, policy()) != before[0]
    assert samples_key(model, policy(), 1.0) != before[1]


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
    assert logps_key(model, policy(**change)) == logps_key(model, policy())


def test_weights_and_tokenizer_are_part_of_the_key_and_notes_beside_them_are_not(model, tmp_path):
    key = logps_key(model, policy())
    (model / "origin.json").write_text("{}")
    assert logps_key(model, policy()) == key
    build_small("llama", seed=1).save(tmp_path / "other")
    assert logps_key(tmp_path / "other", policy()) != key
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert logps_key(model, policy()) != key


def test_weights_precision_and_the_limit_are_part_of_the_key_and_nothing_else(tmp_path):
    build_small("llama").save(tmp_path / "model")
    build_small("llama", seed=1).save(tmp_path / "other")
    key = samples_key(tmp_path / "model", policy(), 1.0)
    assert samples_key(tmp_path / "other", policy(), 1.0) != key
    for change in ({"dtype": "bfloat16"}, {"max_response_tokens": 63}):
        assert samples_key(tmp_path / "model", policy(**change), 1.0) != key
    assert samples_key(tmp_path / "model", policy(), 0.7) != key
    ends = tmp_path / "model/generation_config.json"
    ends.write_text(ends.read_text() + " ")
    assert samples_key(tmp_path / "model", policy(), 1.0) != key
    key = samples_key(tmp_path / "model", policy(), 1.0)
    for change in ({"max_prompt_tokens": 63}, {"warm_start_epochs": 9}):
        assert samples_key(tmp_path / "model", policy(**change), 1.0) == key
