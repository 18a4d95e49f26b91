"""Adapters change nothing until they are trained, and nothing but the adapters is trained."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from rpo_pipeline.engine.adapters import FOLDER, add_adapters, merged_weights
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.params import LoraParams
from tests.conftest import SIZES, build_small, score_table

EXPERTS = {"num_key_value_heads": 2, "head_dim": 8}
SIZES["mixtral"] = {**SIZES["llama"], **EXPERTS, "num_local_experts": 3}
SIZES["gpt_oss"] = SIZES["mixtral"] | {"num_experts_per_tok": 1}
SIZES["qwen3_moe"] = {**SIZES["llama"], **EXPERTS, "num_experts": 4, "num_experts_per_tok": 2}
SIZES["qwen3_moe"] |= {"moe_intermediate_size": 24}
LORA = LoraParams(r=2, alpha=3, target_modules="all-linear")


def scores(language_model, rows):
    table = score_table(language_model, rows)
    return torch.tensor(table["logps"].to_numpy())


def train_adapters(language_model):
    with torch.no_grad():
        for parameter in language_model.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


def test_new_adapters_change_no_score_and_freeze_the_rest(language_model, rows):
    before = scores(language_model, rows)
    add_adapters(language_model.model, LORA)
    assert torch.equal(scores(language_model, rows), before)
    trained = [n for n, p in language_model.model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)


def test_a_saved_model_scores_like_the_live_one_and_knows_nothing_of_adapters(
    language_model, rows, tmp_path
):
    add_adapters(language_model.model, LORA)
    before = scores(language_model, rows)
    train_adapters(language_model)
    live = scores(language_model, rows)
    language_model.save(tmp_path / "saved")
    saved = load_language_model(tmp_path / "saved")
    torch.testing.assert_close(scores(saved, rows), live, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(live, before, rtol=1e-3)
    assert not any("lora" in name for name, _ in saved.model.named_parameters())


def test_saving_leaves_the_live_model_as_it_was(tmp_path):
    language_model = build_small("llama")
    add_adapters(language_model.model, LORA)
    train_adapters(language_model)
    before = {name: t.clone() for name, t in language_model.model.state_dict().items()}
    language_model.save(tmp_path / "saved")
    for name, tensor in language_model.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_without_adapters_the_weights_are_what_they_are(language_model):
    weights = language_model.model.state_dict()
    assert merged_weights(language_model.model, weights) == weights


def test_layers_that_a_model_does_not_have_are_refused_by_name():
    lora = LoraParams(r=2, alpha=3, target_modules=["no_such_layer"])
    with pytest.raises(ConfigError, match="no_such_layer"):
        add_adapters(build_small("llama").model, lora)


def test_adapters_are_kept_beside_the_merged_weights_and_peft_puts_them_on_the_base(
    language_model, rows, tmp_path
):
    language_model.save(tmp_path / "base")
    assert not (tmp_path / "base" / FOLDER).exists()
    add_adapters(language_model.model, LORA)
    train_adapters(language_model)
    language_model.save(tmp_path / "merged")
    base = load_language_model(tmp_path / "base")
    adapted = PeftModel.from_pretrained(base.model, tmp_path / "merged" / FOLDER)
    merged = scores(load_language_model(tmp_path / "merged"), rows)
    with_adapters = scores(replace(base, model=adapted.get_base_model()), rows)
    torch.testing.assert_close(with_adapters, merged, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_adapters_on_fused_experts_are_merged_expert_by_expert(model_type, rows, tmp_path):
    language_model = build_small(model_type)
    language_model.save(tmp_path / "base")
    add_adapters(language_model.model, LORA)
    train_adapters(language_model)
    live = scores(language_model, rows)
    language_model.save(tmp_path / "merged")
    merged = load_language_model(tmp_path / "merged")
    torch.testing.assert_close(scores(merged, rows), live, rtol=1e-5, atol=1e-4)
    base = load_language_model(tmp_path / "base")
    assert not torch.allclose(scores(base, rows), live, rtol=1e-3)
    adapted = PeftModel.from_pretrained(base.model, tmp_path / "merged" / FOLDER)
    with_adapters = scores(replace(base, model=adapted.get_base_model()), rows)
    torch.testing.assert_close(with_adapters, live, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "target", "name"),
    [
        ("llama", "embed_tokens", "model.embed_tokens"),
        ("gpt2", "lm_head", "lm_head"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused_by_name_before_training(
    model_type, target, name
):
    lora = LoraParams(r=2, alpha=3, target_modules=[target])
    with pytest.raises(ConfigError, match=rf"{name}.*cannot be merged"):
        add_adapters(build_small(model_type).model, lora)
