"""Every route through a decoder gives the numbers of scoring row by row."""

import logging
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.data.groups import Group, collate
from rpo_pipeline.models.routes import decoder_logits
from rpo_pipeline.models.scoring import choose_route, score_groups
from tests.conftest import SIZES, build_small

SIZES["qwen2"] = {**SIZES["llama"], "num_key_value_heads": 2}
SIZES["gemma2"] = {**SIZES["llama"], "num_key_value_heads": 2, "head_dim": 8}
SIZES["mistral"] = {**SIZES["qwen2"], "sliding_window": 16}
SIZES["mamba"] = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}

decoder = cache(build_small)
tokens = st.lists(st.integers(4, 300), min_size=1, max_size=7)


@st.composite
def group_lists(draw):
    shapes = draw(
        st.lists(
            st.tuples(tokens, st.lists(tokens, min_size=1, max_size=4)), min_size=1, max_size=4
        )
    )
    groups, row = [], 0
    for prompt, responses in shapes:
        groups.append(Group(prompt, responses, list(range(row, row + len(responses)))))
        row += len(responses)
    return groups


def group(prompt, lengths, first_row=0):
    responses = [[5 + i] * length for i, length in enumerate(lengths)]
    rows = list(range(first_row, first_row + len(lengths)))
    return Group([7] * prompt, responses, rows)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2", "gemma2"])
@pytest.mark.parametrize("route", ["tree", "cache"])
@settings(max_examples=15, deadline=None)
@given(groups=group_lists())
def test_logits_and_gradients_equal_those_of_row_by_row(model_type, route, groups):
    model = decoder(model_type).model
    batch = collate(groups, 0)
    parameters = list(model.parameters())
    expected = decoder_logits(model, batch, "off")
    got = decoder_logits(model, batch, route)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((x * weight).sum(), parameters) for x in (got, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("route", ["tree", "cache"])
@given(group_lists(), st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_scores_do_not_depend_on_the_budget_by_any_route(route, groups, budget):
    shared = replace(decoder("llama"), prefix_sharing=route, checked_routes={})
    expected = score_groups(decoder("llama"), groups, micro_batch_tokens=10_000, title="")
    got = score_groups(shared, groups, micro_batch_tokens=budget, title="")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_auto_shares_long_prompts_of_several_responses_and_leaves_single_ones_alone():
    language_model = build_small("llama")
    assert choose_route(language_model, [group(200, [5, 5, 5, 5])]) != "off"
    assert choose_route(language_model, [group(200, [5])]) == "off"


def test_auto_takes_the_cache_for_long_responses_whose_common_row_would_be_longer_still():
    language_model = build_small("llama")
    assert choose_route(language_model, [group(300, [300] * 8)]) == "cache"
    assert choose_route(language_model, [group(100, [4] * 4)]) == "tree"


def test_a_row_longer_than_a_sliding_window_is_scored_row_by_row():
    language_model = build_small("mistral")
    assert choose_route(language_model, [group(8, [3, 3])]) != "off"
    assert choose_route(language_model, [group(14, [3, 3])]) == "off"


def test_a_model_that_takes_no_tree_mask_falls_back_with_a_warning(caplog):
    language_model = build_small("mamba")
    with caplog.at_level(logging.WARNING):
        route = choose_route(language_model, [group(50, [4, 4, 4])])
    assert route == "off"
    assert "prefix sharing by tree" in caplog.text


def test_an_encoder_decoder_needs_no_route():
    assert choose_route(build_small("t5"), [group(200, [5, 5])]) == "off"
