import math

import pytest
import torch
from torch.nn import functional

from rpo_pipeline.core import logps
from rpo_pipeline.core.logps import projected_logps, sum_by_row, token_logps


def test_a_token_logp_is_the_logarithm_of_its_softmax_share():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    expected = torch.tensor([0.75, 0.2]).log()
    torch.testing.assert_close(token_logps(logits, torch.tensor([1, 1])), expected)


def test_token_logps_are_computed_in_float32_even_for_half_precision_logits():
    logits = torch.randn(5, 300, dtype=torch.bfloat16)
    labels = torch.arange(5)
    exact = logits.float().log_softmax(-1)[torch.arange(5), labels]
    scored = token_logps(logits, labels)
    assert scored.dtype == torch.float32
    torch.testing.assert_close(scored, exact)


def test_tokens_are_summed_into_their_own_rows_and_a_row_without_tokens_is_zero():
    sums = sum_by_row(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([2, 0, 2]), 4)
    assert sums.tolist() == [-2.0, 0.0, -5.0, 0.0]


def head_inputs(bias, tokens=11, dtype=torch.float64):
    torch.manual_seed(0)
    states = torch.randn(tokens, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(7, 4, dtype=dtype, requires_grad=True)
    bias = torch.randn(7, dtype=dtype, requires_grad=True) if bias else None
    return states, weight, bias, torch.randint(0, 7, (tokens,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kept_tokens", [0, 4, 100])
def test_chunks_give_the_values_and_gradients_of_all_logits_at_once(monkeypatch, bias, kept_tokens):
    monkeypatch.setattr(logps, "CHUNK_BYTES", 4 * 7 * 3)  # three tokens
    states, weight, bias, labels = head_inputs(bias, dtype=torch.float32)
    got = projected_logps(states, weight, bias, labels, kept_bytes=4 * 7 * kept_tokens)
    expected = token_logps(functional.linear(states, weight, bias), labels)
    torch.testing.assert_close(got, expected)
    inputs = [tensor for tensor in (states, weight, bias) if tensor is not None]
    upstream = torch.randn(len(labels))
    ours = torch.autograd.grad(got, inputs, upstream, retain_graph=True)
    again = torch.autograd.grad(got, inputs, upstream)  # what was kept is gone by now
    plain = torch.autograd.grad(expected, inputs, upstream)
    for one, two, other in zip(ours, again, plain, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(two, other)


def test_a_frozen_head_gets_no_gradient_and_its_states_do():
    states, weight, _, labels = head_inputs(bias=False, dtype=torch.float32)
    weight.requires_grad_(False)
    projected_logps(states, weight, None, labels).sum().backward()
    assert weight.grad is None
    assert states.grad.abs().sum() > 0


@pytest.mark.parametrize("kept_bytes", [0, 10**6])
def test_under_autocast_products_are_in_half_precision_and_sums_in_float32(kept_bytes):
    states, weight, _, labels = head_inputs(bias=False, tokens=300, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = projected_logps(states, weight, None, labels, kept_bytes=kept_bytes)
        expected = token_logps(functional.linear(states, weight), labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    ours = torch.autograd.grad(got.sum(), [states, weight])
    plain = torch.autograd.grad(expected.sum(), [states, weight])
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()))
