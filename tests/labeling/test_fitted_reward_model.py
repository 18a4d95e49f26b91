"""Heads on frozen embeddings: a truth that they can learn, and two that they cannot."""

import json

import numpy as np
import pandas as pd
import pytest
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from rpo_pipeline.errors import ConfigError, DataError
from rpo_pipeline.labeling.features import FeatureExtractor
from rpo_pipeline.labeling.fitted_reward_model import (
    FittedRewardModelLabeler,
    fit_reward_model,
    fit_reward_models,
)
from rpo_pipeline.labeling.labeling import build_labeler
from rpo_pipeline.params import FittedRewardModelParams
from rpo_pipeline.pipelines.reward_labeling.nodes import label_rows
from tests.conftest import TEXTS, block, build_small

WORDS = " ".join(TEXTS).split()
RULES = {"type": "rules", "weights": {"sentiment": 1.0}}


@pytest.fixture(scope="module", params=["sentence_encoder", "llama"])
def embedder(request, tmp_path_factory):
    """Kind of embedding and directory of a model."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param != "sentence_encoder":
        build_small("llama").save(directory)
        return {"embedding": "language_model", "name_or_path": str(directory)}
    tokenizer: PreTrainedTokenizerFast = build_small("gpt2").tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **sizes)).save_pretrained(
        directory
    )
    tokenizer.save_pretrained(directory)
    return {"embedding": "sentence_encoder", "name_or_path": str(directory)}


@pytest.fixture
def settings(embedder, tmp_path):
    def make(**changes):
        values = {"head": str(tmp_path / "head.json"), "max_tokens": 32, "on_failure": "error"}
        values |= {"min_correlation": 0.5, "min_margin": 0.02}
        return FittedRewardModelParams(**embedder | values | changes)

    return make


def feedback(num_prompts=60, responses=4):
    generator = np.random.default_rng(0)
    rows = [
        (
            f"p{prompt}",
            " ".join(generator.choice(WORDS, 4)),
            " ".join(generator.choice(WORDS, size)),
        )
        for prompt in range(num_prompts)
        for size in generator.integers(3, 12, responses)
    ]
    table = pd.DataFrame(rows, columns=["prompt_id", "prompt", "response"])
    prompts = table.groupby("prompt_id")["prompt"].transform("first")
    return table.assign(prompt=prompts, row_id=table.index.astype(str))


def linear(table, settings):
    """Ratings that are linear in the embedding."""
    features = FeatureExtractor(settings, None)(table)
    direction = np.random.default_rng(1).normal(size=features.shape[1])
    rating = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9) @ direction
    return table.assign(raw_reward=rating / rating.std())


def test_a_truth_in_the_embedding_is_learned_and_holds_on_new_text(settings, tmp_path):
    table = linear(feedback(), settings())
    report = fit_reward_model(table.iloc[:200], settings(), tmp_path / "cache")
    assert report["problems"] == []
    assert report["held_out"]["spearman"] > 0.8
    assert report["held_out"]["pair_accuracy"] > report["longer_is_better"]["pair_accuracy"] + 0.1
    new = table.iloc[200:]
    labels = build_labeler(settings(), tmp_path / "cache").label(new.assign(raw_reward=np.nan))
    assert labels["raw_reward"].corr(new["raw_reward"]) > 0.8
    lowest, *_, highest = report["calibration"]
    assert highest["rated"] - lowest["rated"] == pytest.approx(
        highest["predicted"] - lowest["predicted"], rel=0.35
    )


@pytest.mark.parametrize(
    ("truth", "problem"),
    [("noise", "below min_correlation = 0.5"), ("length", "length alone does as well: 1.000")],
)
def test_a_head_that_cannot_learn_or_only_learns_length_is_refused(
    settings, tmp_path, truth, problem
):
    table = feedback()
    num_words = table["response"].str.split().str.len().astype(float)
    noise = pd.Series(np.random.default_rng(2).normal(size=len(table)))
    table["raw_reward"] = noise if truth == "noise" else -num_words
    with pytest.raises(DataError, match="on_failure: skip") as error:
        fit_reward_model(table, settings(), tmp_path)
    assert problem in str(error.value)


def test_with_skip_it_gives_no_labels_and_says_so(settings, tmp_path, caplog):
    table = feedback().assign(raw_reward=np.random.default_rng(3).normal(size=240))
    report = fit_reward_model(table, settings(on_failure="skip"), tmp_path)
    assert "below min_correlation" in report["problems"][0]
    labels = FittedRewardModelLabeler(settings(on_failure="skip"), tmp_path).label(table)
    assert labels["raw_reward"].isna().all()
    assert "labels none of 240 rows" in caplog.text


def test_too_few_prompts_make_no_head(settings, tmp_path):
    table = linear(feedback(num_prompts=3), settings())
    report = fit_reward_model(table, settings(on_failure="skip"), tmp_path)
    assert report["problems"] == [
        "people rated responses to 3 train prompts, which cannot make 5 folds"
    ]


def test_each_text_is_embedded_once_whatever_is_refitted(settings, tmp_path):
    table = linear(feedback(), settings())
    fit_reward_model(table, settings(), tmp_path)
    first = FittedRewardModelLabeler(settings(), tmp_path)
    stored = sorted(tmp_path.rglob("shard-*.parquet"))
    fit_reward_model(table.iloc[:160], settings(), tmp_path)
    again = FittedRewardModelLabeler(settings(), tmp_path)
    again.label(table)
    assert sorted(tmp_path.rglob("shard-*.parquet")) == stored
    assert again.fingerprint != first.fingerprint


def test_a_head_that_is_missing_or_of_another_embedding_is_an_error(settings, tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        FittedRewardModelLabeler(settings(), tmp_path)
    fit_reward_model(linear(feedback(), settings()), settings(), tmp_path)
    with pytest.raises(ConfigError, match="fitted on other embeddings"):
        FittedRewardModelLabeler(settings(max_tokens=16), tmp_path)


def test_only_train_rows_that_people_rated_are_fitted_on_and_the_next_labeler_steps_in(
    settings, tmp_path
):
    table = feedback().assign(raw_reward=np.random.default_rng(4).normal(size=240), split="train")
    table.loc[:39, "split"] = "test"
    table.loc[40:59, "raw_reward"] = np.nan
    fitted = settings(on_failure="skip").model_dump()
    labeling = block("labeling", labelers=[{"type": "column"}, fitted, RULES])
    reports = fit_reward_models(table, labeling, tmp_path / "cache")
    assert [report["num_rows"] for report in reports] == [180]
    labels, report = label_rows(table, labeling, {}, None, tmp_path / "cache", reports)
    assert report["rows"] == {"column": 220, "fitted_reward_model": 0, "rules": 20, "none": 0}
    assert report["fitted_reward_models"] == reports
    assert len(labels) == 240


def test_members_of_an_ensemble_are_fitted_too(settings, tmp_path):
    table = linear(feedback(), settings()).assign(split="train")
    members = [settings().model_dump(), RULES]
    ensemble = {"type": "ensemble", "combine": "mean", "members": members}
    fit_reward_models(table, block("labeling", labelers=[ensemble]), tmp_path)
    assert json.loads((tmp_path / "head.json").read_text())["problems"] == []
