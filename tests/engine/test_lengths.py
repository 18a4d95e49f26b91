"""Rows of any length score as they would alone, or the model is refused."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from rpo_pipeline.engine.batches import choose_route, score_groups
from rpo_pipeline.engine.building import build_language_model
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.lengths import attention_window, check_positions, forget_lengths, row_kind
from rpo_pipeline.engine.trials import Trials
from rpo_pipeline.errors import ModelError
from rpo_pipeline.params import FromConfigParams
from tests.conftest import SIZES, TEXTS, build_small, limits
from tests.engine.test_routes import group

BASE = {**SIZES["llama"], "num_key_value_heads": 2, "max_position_embeddings": 256}
ROPE = {"rope_theta": 1e4, "factor": 4.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 3.0, 2.5, 2.0],
    "original_max_position_embeddings": 24,
}
ARCHITECTURES = {
    "frequencies for each length": (
        "llama",
        {
            **BASE,
            "max_position_embeddings": 24,
            "rope_parameters": {"rope_type": "dynamic", **ROPE},
        },
    ),
    "two sets of frequencies": ("phi3", {**BASE, "pad_token_id": 0, "rope_parameters": LONG}),
    "local attention by columns": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
        },
    ),
    "chunks": (
        "llama4_text",
        {**BASE, "head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 2}
        | {"intermediate_size_mlp": 48, "no_rope_layers": [1, 0]},
    ),
    "convolutions": (
        "lfm2",
        {**BASE, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
    ),
    "a state": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "ALiBi": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


@cache
def built(name):
    model_type, sizes = ARCHITECTURES[name]
    settings = FromConfigParams(model_type=model_type, vocab_size=320, **sizes)
    language_model = build_language_model(settings, TEXTS, seed=1, dtype="float32")
    with torch.no_grad():
        for weight in language_model.model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)  # as large as trained ones, or no place would matter
    return language_model


def rows_of_all_lengths(vocab_size):
    """Short groups first, whose routes are tried first; then rows beyond every limit above."""
    generator = torch.Generator().manual_seed(3)
    groups, row = [], 0
    for prompt, lengths in ((2, [1] * 5), (1, [3, 5, 1, 9]), (12, [4, 30, 1]), (40, [2, 60])):
        ids = torch.randint(4, vocab_size, (prompt,), generator=generator).tolist()
        responses = [
            [*torch.randint(4, vocab_size, (length,), generator=generator).tolist(), 1]
            for length in lengths
        ]
        groups.append(Group(ids, responses, list(range(row, row + len(lengths)))))
        row += len(lengths)
    return groups


def logps_alone(language_model, prompt, response):
    """Straight from the definition; what an earlier row left behind is taken back first."""
    forget_lengths(language_model.model)
    with torch.no_grad():
        logits = language_model.model(input_ids=torch.tensor([prompt + response])).logits[0]
    scored = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(scored[range(len(response)), response].sum())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_scores_the_same_in_any_company_by_any_route(name):
    language_model = built(name)
    groups = rows_of_all_lengths(len(language_model.tokenizer))
    pairs = [(group.prompt, ids) for group in groups for ids in group.responses]
    expected = torch.tensor([logps_alone(language_model, *pair) for pair in pairs])
    sizes = torch.tensor([len(response) for _, response in pairs])
    for route in ("off", "tree", "cache", "auto"):
        for budget in (64, 100_000):
            tried = replace(language_model, prefix_sharing=route, trials=Trials())
            difference = score_groups(tried, groups, micro_batch_tokens=budget) - expected
            assert float((difference.abs() / sizes).max()) < 1e-4, (route, budget)


@pytest.mark.parametrize(
    ("model_type", "setting"),
    [
        ("mistral", {"sliding_window": 16}),
        ("gpt_neo", {"window_size": 16}),
        ("llama4_text", {"attention_chunk_size": 16}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}),
        ("led", {"attention_window": [32, 16]}),
        ("recurrent_gemma", {"attention_window_size": 16}),
    ],
)
def test_a_window_is_found_under_every_name(model_type, setting):
    model = SimpleNamespace(config=AutoConfig.for_model(model_type, **setting))
    assert attention_window(model) == 16


def test_a_model_that_sees_everything_has_no_window():
    assert attention_window(build_small("llama").model) == float("inf")
    assert row_kind(build_small("llama").model, 10**6) == 0


def test_a_route_is_tried_again_where_groups_are_longer_than_those_it_was_tried_on(caplog):
    language_model = replace(built("local attention by columns"), trials=Trials())
    assert (
        choose_route(replace(language_model, prefix_sharing="tree"), [group(1, [1, 1])]) == "tree"
    )
    longer = [group(2, [3, 3, 3])]  # each row is within the window, their common row is not
    assert choose_route(replace(language_model, prefix_sharing="tree"), longer) == "off"
    assert "prefix sharing by tree is off by" in caplog.text


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 96}),
        ("opt", {**BASE, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 96}),
        ("gptj", {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "n_positions": 96}),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 96}),
        ("biogpt", {**BASE, "max_position_embeddings": 96}),
    ],
)
def test_more_tokens_than_a_model_has_positions_are_refused(model_type, sizes):
    settings = FromConfigParams(model_type=model_type, vocab_size=320, **sizes)
    model = build_language_model(settings, TEXTS, seed=0, dtype="float32").model
    check_positions(model, limits(48, 48))
    model(input_ids=torch.full((1, 96), 5))  # 96 is right, not only refused at 97
    with pytest.raises(
        ModelError, match=r"96 positions.*97 tokens.*policy\.max_prompt_tokens = 49"
    ):
        check_positions(model, limits(49, 48))


def test_an_encoder_and_a_decoder_have_positions_of_their_own():
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 1}
    sizes |= {"decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    settings = FromConfigParams(
        model_type="bart", vocab_size=320, max_position_embeddings=96, **sizes
    )
    model = build_language_model(settings, TEXTS, seed=0, dtype="float32").model
    check_positions(model, limits(96, 96))
    with pytest.raises(ModelError, match=r"policy\.max_response_tokens = 97"):
        check_positions(model, limits(96, 97))


def test_positions_that_are_computed_have_no_end():
    for model_type in ("llama", "t5"):
        check_positions(build_small(model_type).model, limits(10_000, 10_000))
