"""Group scoring against the plain way: one padded-free forward pass per row, all logits."""

from dataclasses import replace

import peft
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.groups import collate
from rpo_pipeline.engine.scoring import group_logps, group_scores
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.engine.trials import Trials
from tests.conftest import SIZES, build_small, limits

SIZES["gemma2"] = {**SIZES["llama"], "num_key_value_heads": 2, "head_dim": 8}


def groups_of(language_model, rows):
    text_format = language_model.text_format(limits(64, 64))
    return tokenise_groups(rows, text_format)


def plain_logps(language_model, prompt, response):
    """Straight from the definition: no batch, no padding, no sharing."""
    model = language_model.model
    if language_model.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        logits = model(
            input_ids=torch.tensor([prompt]),
            decoder_input_ids=torch.tensor([[start, *response[:-1]]]),
        ).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(response)), response].sum()


def test_summed_logps_equal_the_plain_forward_pass(language_model, rows):
    groups = groups_of(language_model, rows)
    batch = collate(groups, language_model.tokenizer.pad_token_id)
    expected = [plain_logps(language_model, g.prompt, ids) for g in groups for ids in g.responses]
    torch.testing.assert_close(
        group_logps(language_model, batch), torch.stack(expected), rtol=1e-5, atol=1e-4
    )


def test_gradients_equal_those_of_the_plain_forward_pass(language_model, rows):
    groups = groups_of(language_model, rows)
    parameters = list(language_model.model.parameters())
    batch = collate(groups, language_model.tokenizer.pad_token_id)
    ours = torch.autograd.grad(group_logps(language_model, batch).sum(), parameters)
    plain = sum(plain_logps(language_model, g.prompt, ids) for g in groups for ids in g.responses)
    expected = torch.autograd.grad(plain, parameters)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("micro_batch_tokens", [1, 60, 100_000])
def test_scores_do_not_depend_on_the_token_budget(language_model, rows, micro_batch_tokens):
    groups = groups_of(language_model, rows)
    whole = score_groups(language_model, groups, micro_batch_tokens=10_000)
    split = score_groups(language_model, groups, micro_batch_tokens=micro_batch_tokens)
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)


def test_no_more_logits_are_computed_than_there_are_response_tokens(rows, monkeypatch):
    language_model = build_small("llama")
    batch = collate(groups_of(language_model, rows), language_model.tokenizer.pad_token_id)
    group_logps(language_model, batch)  # the check at first use is over
    monkeypatch.setattr("rpo_pipeline.core.logps.CHUNK_BYTES", 4 * 320 * 10)  # ten tokens
    shapes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mm.default and out.shape[1] == 320:
                shapes.append(len(out))
            return out

    with Watch():
        group_logps(language_model, batch)
    assert max(shapes) == 10
    assert sum(shapes) == int(batch.num_tokens.sum()) + 1  # and one by the model itself


def test_an_encoder_reads_each_prompt_once(rows):
    language_model = build_small("t5")
    batch = collate(groups_of(language_model, rows), language_model.tokenizer.pad_token_id)
    group_logps(language_model, batch)
    shapes = []
    encoder = language_model.model.get_encoder()
    handle = encoder.register_forward_hook(
        lambda _module, _inputs, output: shapes.append(output[0].shape)
    )
    group_logps(language_model, batch)
    handle.remove()
    assert [shape[0] for shape in shapes] == [rows["prompt_id"].nunique()]


def test_capped_logits_stay_exact_with_a_warning(rows, caplog):
    language_model = build_small("gemma2")
    language_model.model.config.final_logit_softcapping = 0.2
    batch = collate(groups_of(language_model, rows), language_model.tokenizer.pad_token_id)
    expected = [
        plain_logps(language_model, g.prompt, ids)
        for g in groups_of(language_model, rows)
        for ids in g.responses
    ]
    for _ in range(2):
        got = group_logps(language_model, batch)
        torch.testing.assert_close(got, torch.stack(expected), rtol=1e-5, atol=1e-4)
    assert caplog.text.count("changes its logits after the vocabulary head") == 1


def test_an_adapter_on_the_head_is_not_skipped(rows):
    language_model = build_small("llama")
    config = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, language_model.model)
    groups = groups_of(language_model, rows)
    expected = [plain_logps(language_model, g.prompt, ids) for g in groups for ids in g.responses]
    got = group_logps(language_model, collate(groups, 0))
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("route", ["off", "tree", "cache"])
def test_the_state_of_a_prompt_is_the_same_by_every_route(rows, route):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    logps, states = group_scores(language_model, collate(groups, 0), route)
    for state, group in zip(states, groups, strict=True):
        expected = language_model.model.model(torch.tensor([group.prompt])).last_hidden_state[0, -1]
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)
    assert logps.requires_grad
    assert not states.requires_grad


@pytest.mark.parametrize("route", ["off", "cache"])
def test_the_state_of_an_encoded_prompt_is_the_mean_over_its_tokens(rows, route):
    language_model = build_small("t5")
    groups = groups_of(language_model, rows)
    _, states = group_scores(language_model, collate(groups, 0), route)
    for state, group in zip(states, groups, strict=True):
        encoded = language_model.model.get_encoder()(torch.tensor([group.prompt]))
        torch.testing.assert_close(
            state, encoded.last_hidden_state[0].mean(dim=0), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("route", ["off", "tree", "cache"])
def test_every_tensor_is_made_on_the_device_of_the_batch(language_model, rows, route):
    batch = collate(groups_of(language_model, rows), 0)
    expected = group_scores(language_model, batch, route)
    with torch.device("meta"):  # where a tensor goes that names no device
        got = group_scores(language_model, batch, route)
    torch.testing.assert_close(got, expected)


def test_half_precision_is_near_float32(language_model, rows):
    groups = groups_of(language_model, rows)
    half = replace(language_model, dtype=torch.bfloat16, trials=Trials())
    exact = score_groups(language_model, groups, micro_batch_tokens=200)
    got = score_groups(half, groups, micro_batch_tokens=200)
    torch.testing.assert_close(got, exact, rtol=5e-3, atol=0.05)
    assert half.trials.head_is_plain
