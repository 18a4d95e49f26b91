"""Every route gives the numbers of one plain padded forward pass with all logits."""

import logging
from dataclasses import replace
from functools import cache

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.engine.batches import choose_route, micro_batches, score_groups
from rpo_pipeline.engine.groups import Group, collate
from rpo_pipeline.engine.scoring import group_logps
from rpo_pipeline.engine.trials import Trials
from tests.conftest import SIZES, build_small

SIZES["qwen2"] = {**SIZES["llama"], "num_key_value_heads": 2}
SIZES["gemma2"] = {**SIZES["qwen2"], "head_dim": 8}
SIZES["gemma3_text"] = {**SIZES["gemma2"], "sliding_window": 16, "sliding_window_pattern": 2}
SIZES["mistral"] = {**SIZES["qwen2"], "sliding_window": 16}
SIZES["mamba"] = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}

ROUTES = [
    *(
        (name, route)
        for name in SIZES
        if name not in ("t5", "mamba")
        for route in ("tree", "cache")
    ),
    *(("t5", route) for route in ("off", "cache")),
]
tokens = st.lists(st.integers(4, 300), min_size=1, max_size=7)


@cache
def prepared(model_type, lora=False, checkpointing=False):
    """A small model as training has it."""
    language_model = build_small(model_type)
    model = language_model.model
    if lora:
        targets = ["c_attn", "c_proj"] if model_type == "gpt2" else ["q", "v", "q_proj", "v_proj"]
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        peft.inject_adapter_in_model(config, model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    return language_model


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


def plain_logps(language_model, batch):
    """Straight from the definition: right padding, all logits, each prompt once per response."""
    model, index = language_model.model, batch.prompt_index
    if language_model.is_encoder_decoder:
        start = torch.full_like(batch.rows, model.config.decoder_start_token_id)[:, None]
        logits = model(
            input_ids=batch.prompt_ids[index],
            attention_mask=batch.prompt_mask[index],
            decoder_input_ids=torch.cat([start, batch.response_ids[:, :-1]], dim=1),
        ).logits
        scored = logits.log_softmax(-1).gather(2, batch.response_ids[..., None]).squeeze(2)
        return (scored * batch.loss_mask).sum(dim=1)
    logps = []
    for row in range(len(batch.rows)):
        prompt = batch.prompt_ids[index[row]][batch.prompt_mask[index[row]].bool()]
        response = batch.response_ids[row][batch.loss_mask[row]]
        logits = model(input_ids=torch.cat([prompt, response])[None]).logits[0]
        scored = logits[len(prompt) - 1 : -1].log_softmax(-1)
        logps.append(scored[range(len(response)), response].sum())
    return torch.stack(logps)


def assert_same_values_and_gradients(language_model, groups, route):
    batch = collate(groups, 0)
    parameters = [p for p in language_model.model.parameters() if p.requires_grad]
    values = group_logps(language_model, batch, route), plain_logps(language_model, batch)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    weight = torch.randn(len(batch.rows), generator=torch.Generator().manual_seed(0))
    gradients = [
        torch.autograd.grad((x * weight).sum(), parameters, allow_unused=True) for x in values
    ]
    largest = max(float(g.abs().max()) for g in gradients[1] if g is not None)
    for one, other in zip(*gradients, strict=True):
        # Sums of float32 in another order: gradients that cancel are off by more than values are.
        # A token that is seen and should not be is off by a thousand times as much.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-4 * largest)


@pytest.mark.parametrize(("model_type", "route"), ROUTES)
@settings(max_examples=8, deadline=None)
@given(groups=group_lists())
def test_logps_and_gradients_equal_those_of_a_plain_forward_pass(model_type, route, groups):
    assert_same_values_and_gradients(prepared(model_type), groups, route)


@pytest.mark.parametrize(("model_type", "route"), ROUTES)
@settings(max_examples=4, deadline=None)
@given(groups=group_lists())
def test_gradients_of_adapters_equal_those_of_a_plain_forward_pass(model_type, route, groups):
    assert_same_values_and_gradients(prepared(model_type, lora=True), groups, route)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", [name for name in SIZES if name != "mamba"])
@settings(max_examples=3, deadline=None)
@given(groups=group_lists())
def test_checkpointing_changes_neither_values_nor_gradients(model_type, lora, groups):
    language_model = prepared(model_type, lora, checkpointing=True)
    ((_, route),) = micro_batches(language_model, groups, 10_000)
    assert route != "cache"
    assert_same_values_and_gradients(language_model, groups, route)


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_a_route_that_fails_gives_way_to_row_by_row_with_a_warning(model_type, caplog):
    language_model = replace(prepared(model_type, checkpointing=True), trials=Trials())
    batch = collate([group(20, [3, 4])], 0)
    torch.testing.assert_close(
        group_logps(language_model, batch, "cache"), plain_logps(language_model, batch)
    )
    assert "prefix sharing by cache does not work" in caplog.text
    assert "gradient checkpointing empties it" in caplog.text


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_cache_is_not_chosen_under_checkpointing_even_if_wished(model_type):
    language_model = replace(prepared(model_type, checkpointing=True), prefix_sharing="cache")
    assert choose_route(language_model, [group(200, [30] * 4)]) != "cache"


@pytest.mark.parametrize(
    ("model_type", "route"), [("llama", "tree"), ("llama", "cache"), ("t5", "auto")]
)
@given(group_lists(), st.integers(1, 60))
@settings(max_examples=8, deadline=None)
def test_scores_do_not_depend_on_the_budget_by_any_route(model_type, route, groups, budget):
    plain = replace(prepared(model_type), prefix_sharing="off")
    shared = replace(plain, prefix_sharing=route)
    expected = score_groups(plain, groups, micro_batch_tokens=10_000)
    got = score_groups(shared, groups, micro_batch_tokens=budget)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_auto_shares_long_prompts_of_several_responses_and_leaves_single_ones_alone():
    language_model = build_small("llama")
    assert choose_route(language_model, [group(200, [5, 5, 5, 5])]) != "off"
    assert choose_route(language_model, [group(200, [5])]) == "off"


def test_auto_takes_the_cache_for_long_responses_whose_common_row_would_be_longer_still():
    language_model = build_small("llama")
    assert choose_route(language_model, [group(300, [300] * 8)]) == "cache"
    assert choose_route(language_model, [group(100, [4] * 4)]) == "tree"


@pytest.mark.parametrize("model_type", ["mistral", "gemma3_text"])
def test_rows_longer_than_a_sliding_window_are_scored_row_by_row_and_said_once(model_type, caplog):
    language_model = build_small(model_type)
    short, long = group(8, [3, 3]), group(14, [3, 9], first_row=2)
    batches = list(micro_batches(language_model, [short, long], 1000))
    assert [(batch.rows.tolist(), route) for batch, route in batches] == [
        ([0, 1], batches[0][1]),
        ([2, 3], "off"),
    ]
    assert batches[0][1] != "off"
    list(micro_batches(language_model, [long], 1000))
    assert caplog.text.count("over the model's attention window of 16 tokens") == 1
    assert_same_values_and_gradients(language_model, [long], "off")


def test_a_tree_or_cache_would_be_wrong_for_rows_longer_than_a_window():
    language_model = build_small("gemma3_text")
    batch = collate([group(14, [3, 9])], 0)
    plain = plain_logps(language_model, batch)
    assert not torch.allclose(group_logps(language_model, batch, "tree"), plain, rtol=1e-5)


def test_a_model_that_takes_no_tree_mask_falls_back_with_a_warning(caplog):
    language_model = build_small("mamba")
    with caplog.at_level(logging.WARNING):
        route = choose_route(language_model, [group(50, [4, 4, 4])])
    assert route == "off"
    assert "prefix sharing by tree" in caplog.text


def test_an_encoder_decoder_keeps_keys_and_values_of_prompts_with_several_responses():
    language_model = build_small("t5")
    assert choose_route(language_model, [group(200, [5, 5])]) == "cache"
    assert choose_route(language_model, [group(200, [5])]) == "off"
