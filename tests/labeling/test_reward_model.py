"""Reward models of both kinds: a decoder with a chat template, an encoder that reads pairs."""

from itertools import pairwise

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig
from transformers import LlamaForSequenceClassification as LlamaReward

from rpo_pipeline.engine.building import fit_tokenizer
from rpo_pipeline.engine.groups import pack_rows
from rpo_pipeline.errors import ConfigError, ModelError
from rpo_pipeline.labeling.labeling import build_labeler
from rpo_pipeline.labeling.reward_model import RewardModelLabeler
from rpo_pipeline.params import RewardModelParams
from tests.conftest import SIZES, TEXTS, build_small

BERT = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
BERT |= {"num_hidden_layers": 2, "max_position_embeddings": 64}


def save_reward_model(directory, kind="llama", *, seed=0, labels=("reward",), pad=True):
    """A small model with random weights, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = fit_tokenizer(TEXTS, vocab_size=320, is_encoder_decoder=kind == "bert")
    names = dict(enumerate(labels))
    shared = {"vocab_size": len(tokenizer), "id2label": names, "label2id": {}, "num_labels": None}
    shared = {k: v for k, v in shared.items() if v is not None}
    if kind == "llama":
        config = LlamaConfig(**SIZES["llama"], **shared)
        config.pad_token_id = tokenizer.pad_token_id if pad else None
        model = LlamaReward(config)
    else:
        end = tokenizer.eos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|end|>", pair="$A <|end|> $B:1 <|end|>:1", special_tokens=[("<|end|>", end)]
        )
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        model = BertForSequenceClassification(BertConfig(**BERT, **shared, pad_token_id=0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "score" in name or "classifier.weight" in name:
                weight.mul_(50)  # so that rows differ by more than rounding
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return RewardModelParams(name_or_path=str(directory))


def alone(settings, rows):
    """Raw rewards from a batch of one, as transformers' own forward pass gives them."""
    one = RewardModelLabeler(settings)
    return [one.label(rows.iloc[[i]])["raw_reward"].iloc[0] for i in range(len(rows))]


@pytest.mark.parametrize(("kind", "pad"), [("llama", True), ("llama", False), ("bert", True)])
def test_a_batch_gives_each_row_what_it_gets_alone(rows, tmp_path, kind, pad):
    settings = save_reward_model(tmp_path, kind, pad=pad)
    together = RewardModelLabeler(settings).label(rows)["raw_reward"]
    assert together.nunique() == len(rows)
    assert together.tolist() == pytest.approx(alone(settings, rows), rel=1e-4, abs=1e-5)


def test_a_chat_is_read_as_the_template_writes_it_and_judged_at_its_last_token(rows, tmp_path):
    settings = save_reward_model(tmp_path)
    labels = RewardModelLabeler(settings).label(rows.iloc[[1]])
    tokenizer = fit_tokenizer(TEXTS, vocab_size=320, is_encoder_decoder=False)
    text = f"<|user|>{rows['prompt'][1]}<|assistant|>{rows['response'][1]}<|end|>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        logits = LlamaReward.from_pretrained(tmp_path)(input_ids=ids["input_ids"]).logits
    assert labels["raw_reward"].iloc[0] == pytest.approx(logits.item(), rel=1e-5)


def test_a_pair_is_read_with_the_types_of_its_two_halves(rows, tmp_path):
    settings = save_reward_model(tmp_path, "bert")
    labels = RewardModelLabeler(settings).label(rows)
    swapped = rows.rename(columns={"prompt": "response", "response": "prompt"})
    assert (RewardModelLabeler(settings).label(swapped) - labels).abs().min().item() > 1e-3


def test_a_head_of_two_labels_gives_the_margin_and_both_as_components(rows, tmp_path):
    save_reward_model(tmp_path, labels=("BAD", "GOOD"))
    settings = RewardModelParams(
        name_or_path=str(tmp_path), positive_label="GOOD", negative_label="BAD"
    )
    labels = RewardModelLabeler(settings).label(rows)
    pd.testing.assert_series_equal(
        labels["raw_reward"], labels["good"] - labels["bad"], check_names=False
    )
    assert labels["raw_reward"].std() > 0


@pytest.mark.parametrize("ends", [{}, {"positive_label": "great", "negative_label": "bad"}])
def test_a_head_whose_ends_are_not_named_is_refused_with_its_labels(rows, tmp_path, ends):
    save_reward_model(tmp_path, labels=("BAD", "GOOD"))
    settings = RewardModelParams(name_or_path=str(tmp_path), **ends)
    with pytest.raises(ConfigError, match="each one of bad, good"):
        RewardModelLabeler(settings).label(rows)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_long_rows_are_cut_and_counted_and_keep_the_response(rows, tmp_path, caplog, kind):
    settings = save_reward_model(tmp_path, kind).model_copy(update={"max_tokens": 20})
    long = rows.assign(prompt="My kettle leaks. " * 40, response=["a", "b"] * 3)
    labeler = RewardModelLabeler(settings)
    labels = labeler.label(long)["raw_reward"]
    labeler.label(long)
    assert caplog.text.count("are cut at") == 1
    assert "6 of the first 6 pairs of prompt and response are cut at 20 tokens" in caplog.text
    assert labels.round(5).nunique() == 2


def test_a_language_model_without_a_reward_head_is_refused(rows, tmp_path):
    build_small("llama").save(tmp_path)
    labeler = RewardModelLabeler(RewardModelParams(name_or_path=str(tmp_path)))
    with pytest.raises(ModelError, match=r"no reward model: it has no weights for score\.weight"):
        labeler.label(rows)


def test_a_hub_id_without_a_commit_and_a_model_that_is_not_there_are_refused(rows):
    with pytest.raises(ConfigError, match="give its commit as `revision`"):
        build_labeler(RewardModelParams(name_or_path="some/model"), None)
    settings = RewardModelParams(name_or_path="some/model", revision="0" * 40)
    with pytest.raises(ModelError, match="cannot load the reward model 'some/model'"):
        RewardModelLabeler(settings).label(rows)


def test_the_fingerprint_follows_weights_and_reading_but_neither_place_nor_batching(tmp_path):
    def fingerprint(folder, seed=0, **changes):
        settings = save_reward_model(tmp_path / folder, seed=seed)
        return RewardModelLabeler(settings.model_copy(update=changes)).fingerprint

    same = {fingerprint("a"), fingerprint("b"), fingerprint("a", micro_batch_tokens=64)}
    assert len(same | {fingerprint("a", num_processes=2)}) == 1
    assert len(same | {fingerprint("c", seed=1), fingerprint("a", max_tokens=9)}) == 3


@given(lengths=st.lists(st.integers(1, 50), max_size=40), max_tokens=st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_budget_and_longest_first(lengths, max_tokens):
    cut = list(pack_rows(lengths, max_tokens))
    assert sorted(row for batch in cut for row in batch) == list(range(len(lengths)))
    for batch in cut:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= max_tokens
    order = [lengths[row] for batch in cut for row in batch]
    assert all(first >= second for first, second in pairwise(order))


def test_weights_stored_as_whole_numbers_are_refused_in_a_reward_model_too(rows, tmp_path):
    settings = save_reward_model(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: (10 * one).to(torch.int8) for name, one in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="of its weights as I8"):
        RewardModelLabeler(settings).label(rows)
