import json

import pytest

from rpo_pipeline.errors import ConfigError, ModelError
from rpo_pipeline.io.digests import model_fingerprint
from rpo_pipeline.models.loading import load_language_model
from rpo_pipeline.training.reference import prepare_reference
from tests.conftest import SIZES, block, build_small
from tests.training.test_loop import SETTINGS, metrics_of


@pytest.fixture
def feedback(rows):
    return rows.assign(
        split=rows["prompt_id"].map({"p0": "train", "p1": "train", "p2": "validation"})
    )


def policy(**changes):
    settings = {
        "from_config": {"model_type": "llama", "vocab_size": 320, **SIZES["llama"]},
        "warm_start_epochs": 2,
        "warm_start_learning_rate": 1e-2,
        "max_prompt_tokens": 64,
        "max_response_tokens": 64,
    }
    return block("policy", **(settings | changes))


def prepare(feedback, folder, existing=None, **changes):
    folder.mkdir(exist_ok=True)
    return prepare_reference(existing, feedback, policy(**changes), SETTINGS, folder)


def test_a_reference_is_built_from_its_config_block_and_warm_started(feedback, tmp_path):
    directory = prepare(feedback, tmp_path / "work")
    assert load_language_model(directory).model.config.model_type == "llama"
    assert "warm_start/validation_loss" in metrics_of(tmp_path / "work")
    assert json.loads((directory / "origin.json").read_text())["warm_start_epochs"] == 2


def test_its_tokenizer_is_fitted_on_train_only(feedback, tmp_path):
    held_out = feedback.assign(response="zyx" * 40).where(
        feedback["split"] == "validation", feedback
    )
    directory = prepare(held_out, tmp_path / "work")
    assert not any("zy" in token for token in load_language_model(directory).tokenizer.get_vocab())


def test_a_model_directory_without_a_warm_start_is_taken_as_it_is(feedback, tmp_path):
    build_small("t5").save(tmp_path / "pretrained")
    directory = prepare(
        feedback,
        tmp_path / "work",
        name_or_path=str(tmp_path / "pretrained"),
        from_config=None,
        warm_start_epochs=0,
    )
    weights = [folder / "model.safetensors" for folder in (directory, tmp_path / "pretrained")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_existing_reference_is_reused_and_a_reset_makes_it_anew(feedback, tmp_path):
    existing = prepare(feedback, tmp_path / "first").rename(tmp_path / "reference")
    assert prepare(feedback, tmp_path / "second", existing) == existing
    anew = prepare(feedback, tmp_path / "third", existing, reset_reference=True)
    assert anew != existing
    assert model_fingerprint(anew) == model_fingerprint(existing)


def test_a_reference_made_from_other_settings_is_refused_with_what_changed(feedback, tmp_path):
    existing = prepare(feedback, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"policy\.warm_start_epochs: 2\.0 -> 3\.0"):
        prepare(feedback, tmp_path / "second", existing, warm_start_epochs=3)


def test_a_model_that_is_not_there_is_named(feedback, tmp_path):
    with pytest.raises(ModelError, match="no/such/model"):
        prepare(feedback, tmp_path / "work", name_or_path="no/such/model", from_config=None)
