import math

import torch

from rpo_pipeline.core.logps import sum_by_row, token_logps


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
