import math

import pytest
import torch

from rpo_pipeline.core.quantile import quantile_log_z, quantiles


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_a_reward_between_samples_takes_the_share_below_and_a_tie_half_of_the_equal():
    samples = row(-1.0, 0.0, 0.0, 2.0)
    placed = quantiles(row(-5.0, -0.5, 0.0, 2.0, 9.0), samples)
    assert placed.tolist() == [[0.0, 0.25, 0.5, 0.875, 1.0]]


def test_each_prompt_is_placed_among_its_own_samples():
    samples = torch.cat([row(0.0, 1.0), row(5.0, 6.0)])
    assert quantiles(torch.tensor([[3.0], [3.0]]).double(), samples).tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("tau", [0.1, 0.5, 3.0])
def test_log_z_converges_to_the_closed_form_as_samples_grow(tau):
    closed = 1 / tau + math.log(tau) + math.log1p(-math.exp(-1 / tau))
    errors = [
        abs(float(quantile_log_z(torch.arange(k).double()[None], tau=tau)) - closed)
        for k in (4, 32, 256, 2048)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 / tau


def test_a_reward_that_takes_few_values_keeps_their_shares():
    """A fair coin: in the limit half of the responses stand at 1/4 and half at 3/4."""
    coin = torch.tensor([[0.0] * 5000 + [1.0] * 5000], dtype=torch.float64)
    expected = math.log((math.exp(0.25 / 0.5) + math.exp(0.75 / 0.5)) / 2)
    assert float(quantile_log_z(coin, tau=0.5)) == pytest.approx(expected, abs=1e-3)


def test_a_fresh_response_of_the_reference_has_mean_one_under_exp_of_its_target():
    """Whatever the reward's distribution, if it is continuous: the quantile's is known."""
    rewards = torch.randn(40_000, 6, generator=torch.Generator().manual_seed(0)).exp().double()
    samples, fresh = rewards[:, :5].sort().values, rewards[:, 5:]
    targets = quantiles(fresh, samples).flatten() / 0.5 - quantile_log_z(samples, tau=0.5)
    assert float(targets.exp().mean()) == pytest.approx(1.0, abs=0.01)
