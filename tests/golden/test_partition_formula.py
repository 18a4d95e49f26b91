"""log_z against the formulas of docs/method.md, written out with exact arithmetic on numbers."""

import math
from fractions import Fraction
from statistics import fmean

import pytest
import torch

from rpo_pipeline.core.partition import behaviour_weights, estimate_partition, fit_prior

TAU = 0.5
REWARDS = [[1.25, -0.5, 0.25], [0.75], [-1.0, -1.0], [2.0, 0.0, 0.5, -0.25]]
WEIGHTS = [[-0.5, -1.5, -0.75], [-0.25], [-2.0, -1.0], [-0.5, -0.5, -3.0, -1.25]]


def exp_sum(rewards, weights):
    return sum(
        Fraction(math.exp(w)) * Fraction(math.exp(r / TAU))
        for r, w in zip(rewards, weights, strict=True)
    )


def log(fraction):
    return math.log(fraction.numerator) - math.log(fraction.denominator)


def estimate(weights, **settings):
    group = torch.tensor([g for g, rewards in enumerate(REWARDS) for _ in rewards])
    flat = torch.tensor([r for rewards in REWARDS for r in rewards], dtype=torch.float64)
    weights = torch.tensor([w for group in weights for w in group], dtype=torch.float64)
    return estimate_partition(flat, weights, group, len(REWARDS), tau=TAU, **settings)


def test_monte_carlo():
    expected = [log(exp_sum(r, [0.0] * len(r)) / len(r)) for r in REWARDS]
    zeros = [[0.0] * len(r) for r in REWARDS]
    assert estimate(zeros).log_z.tolist() == pytest.approx(expected, rel=1e-12)


def test_self_normalized():
    expected = [
        log(exp_sum(r, w) / sum(Fraction(math.exp(x)) for x in w))
        for r, w in zip(REWARDS, WEIGHTS, strict=True)
    ]
    assert estimate(WEIGHTS).log_z.tolist() == pytest.approx(expected, rel=1e-12)


def test_behaviour_weights():
    """``w_i = clip(alpha (ref - behaviour), +-c around the prompt's mean)`` at alpha 0.5, c 1."""
    ref_logps, behaviour_logps = [-4.0, -9.0, -2.5, -7.0], [-6.0, -3.0, -2.0, -8.0]
    ratios = [0.5 * (r - b) for r, b in zip(ref_logps, behaviour_logps, strict=True)]
    mean = fmean(ratios)
    expected = [min(max(ratio, mean - 1), mean + 1) for ratio in ratios]
    got = behaviour_weights(
        torch.tensor(ref_logps).double(),
        torch.tensor(behaviour_logps).double(),
        torch.zeros(4, dtype=torch.long),
        1,
        alpha=0.5,
        clip=1.0,
    )
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


def test_reference_weighted():
    expected = [log(exp_sum(r, w)) for r, w in zip(REWARDS, WEIGHTS, strict=True)]
    got = estimate(WEIGHTS, normalised=False).log_z.tolist()
    assert got == pytest.approx(expected, rel=1e-12)


def test_the_prior_for_few_responses():
    k = 2.0
    flat = [r for rewards in REWARDS for r in rewards]
    means = [fmean(r) for r in REWARDS]
    several = [(r, m, len(r)) for r, m in zip(REWARDS, means, strict=True) if len(r) > 1]
    within = sum((x - m) ** 2 for r, m, _ in several for x in r) / sum(n - 1 for *_, n in several)
    spread_of_means = sum((m - fmean(means)) ** 2 for m in means) / (len(means) - 1)
    between = spread_of_means - fmean([within / len(r) for r in REWARDS])
    k_b = within / between
    log_c = math.log(
        fmean([math.exp((x - m) * math.sqrt(n / (n - 1)) / TAU) for r, m, n in several for x in r])
    )
    expected = []
    for rewards in REWARDS:
        n = len(rewards)
        level = (sum(rewards) + k_b * fmean(flat)) / (n + k_b)
        own = sum(math.exp(r / TAU) for r in rewards)
        expected.append(math.log((own + k * math.exp(level / TAU + log_c)) / (n + k)))
    group = torch.tensor([g for g, rewards in enumerate(REWARDS) for _ in rewards])
    prior = fit_prior(torch.tensor(flat).double(), group, len(REWARDS), tau=TAU, strength=k)
    zeros = [[0.0] * len(r) for r in REWARDS]
    assert estimate(zeros, prior=prior).log_z.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_jackknife():
    got = estimate([[0.0] * len(r) for r in REWARDS])
    for rewards, se, bias in zip(REWARDS, got.log_z_se, got.log_z_bias, strict=True):
        n = len(rewards)
        if n == 1:
            assert math.isnan(se)
            continue
        full = math.log(fmean([math.exp(r / TAU) for r in rewards]))
        without = [
            math.log(fmean([math.exp(r / TAU) for j, r in enumerate(rewards) if j != i]))
            for i in range(n)
        ]
        mean = fmean(without)
        assert float(se) == pytest.approx(
            math.sqrt((n - 1) / n * sum((w - mean) ** 2 for w in without))
        )
        assert float(bias) == pytest.approx((n - 1) * (mean - full))
