import json

import pandas as pd
import pytest

from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ConfigError, ModelError
from rpo_pipeline.storage.digests import model_fingerprint
from rpo_pipeline.training.log_overlap import sketch_log
from rpo_pipeline.training.reference import prepare_reference
from tests.conftest import SIZES, block, build_small
from tests.training.test_loop import SETTINGS, metrics_of


@pytest.fixture
def feedback(rows):
    return rows.assign(
        split=rows["prompt_id"].map({"p0": "train", "p1": "train", "p2": "validation"}),
        origin=[f"first.jsonl:{line}" for line in range(len(rows))],
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


def prepare(feedback, folder, existing=None, last_log=None, **changes):
    folder.mkdir(exist_ok=True)
    settings = (policy(**changes), SETTINGS, folder)
    return prepare_reference(existing, feedback, *settings, last_log=last_log)


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


def with_ids(feedback, prefix):
    """The same number of rows of another log."""
    ids = [f"{prefix}{place}" for place in range(len(feedback))]
    return feedback.assign(row_id=ids, origin=[f"{prefix}.jsonl:{i}" for i in range(len(ids))])


def test_a_reference_that_learned_from_another_log_is_refused_and_both_logs_are_named(
    feedback, tmp_path
):
    existing = prepare(feedback, tmp_path / "first")
    other = with_ids(feedback, "other")
    with pytest.raises(ConfigError, match=r"0% of its rows \(first.jsonl: 4 rows\)") as error:
        prepare(other, tmp_path / "second", existing)
    assert "(other.jsonl: 6 rows)" in str(error.value)
    assert "policy.reset_reference=true" in str(error.value)
    assert prepare(other, tmp_path / "third", existing, min_log_overlap=0) == existing


def test_a_log_that_grows_loses_a_few_rows_or_is_joined_by_another_keeps_its_reference(
    feedback, tmp_path
):
    existing = prepare(feedback, tmp_path / "first")
    joined = pd.concat([feedback, with_ids(feedback, "other")], ignore_index=True)
    for log in (feedback.iloc[1:], joined):
        assert prepare(log, tmp_path / "second", existing) == existing


def test_a_log_that_rotates_keeps_its_reference_for_as_long_as_it_knows_itself_a_run_ago(
    feedback, tmp_path
):
    existing = prepare(feedback, tmp_path / "first")
    later = with_ids(feedback, "later")
    half = pd.concat([feedback.iloc[3:], later.iloc[:3]], ignore_index=True)
    assert prepare(half, tmp_path / "second", existing, sketch_log(feedback)) == existing
    assert prepare(later, tmp_path / "third", existing, sketch_log(half)) == existing


def test_a_reference_that_learned_from_no_log_goes_with_any(feedback, tmp_path):
    build_small("t5").save(tmp_path / "pretrained")
    taken = {"name_or_path": str(tmp_path / "pretrained"), "from_config": None}
    taken |= {"warm_start_epochs": 0}
    existing = prepare(feedback, tmp_path / "first", **taken)
    other = with_ids(feedback, "other")
    assert prepare(other, tmp_path / "second", existing, sketch_log(feedback), **taken) == existing


def test_a_model_that_was_replaced_in_its_folder_is_told_and_a_reset_takes_the_new_one(
    feedback, tmp_path
):
    pretrained = tmp_path / "pretrained"
    taken = {"name_or_path": str(pretrained), "from_config": None, "warm_start_epochs": 0}
    build_small("llama", 0).save(pretrained)
    existing = prepare(feedback, tmp_path / "first", **taken).rename(tmp_path / "reference")
    build_small("llama", 1).save(pretrained)
    with pytest.raises(ConfigError, match="another model than the one that is now in") as error:
        prepare(feedback, tmp_path / "second", existing, **taken)
    assert "policy.reset_reference=true" in str(error.value)
    anew = prepare(feedback, tmp_path / "third", existing, reset_reference=True, **taken)
    assert prepare(feedback, tmp_path / "fourth", anew, **taken) == anew
    pretrained.rename(tmp_path / "elsewhere")  # gone, not replaced
    assert prepare(feedback, tmp_path / "fifth", existing, **taken) == existing


def test_a_model_that_is_not_there_is_named(feedback, tmp_path):
    with pytest.raises(ModelError, match="no/such/model"):
        prepare(feedback, tmp_path / "work", name_or_path="no/such/model", from_config=None)
