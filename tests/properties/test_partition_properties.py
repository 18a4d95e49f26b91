"""What must hold of log_z for any rewards, weights and groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.core.partition import estimate_partition
from rpo_pipeline.core.quantile import quantile_log_z, quantiles
from rpo_pipeline.core.segments import leave_one_out_logsumexp, segment_logsumexp

rewards_lists = st.lists(st.floats(-5, 5), min_size=1, max_size=12)
taus = st.floats(0.05, 10)


def log_z(rewards, weights, tau, **settings):
    group = torch.zeros(len(rewards), dtype=torch.long)
    rewards = torch.tensor(rewards, dtype=torch.float64)
    weights = torch.tensor(weights, dtype=torch.float64)
    return float(estimate_partition(rewards, weights, group, 1, tau=tau, **settings).log_z)


@st.composite
def weighted(draw):
    rewards = draw(rewards_lists)
    weights = draw(st.lists(st.floats(-8, 0), min_size=len(rewards), max_size=len(rewards)))
    return rewards, weights


def targets_of(rewards, weights, tau, **settings):
    value = log_z(rewards, weights, tau, **settings)
    return torch.tensor(rewards, dtype=torch.float64) / tau - value


@given(rewards_lists, taus)
def test_monte_carlo_targets_have_mean_one_under_exp(rewards, tau):
    targets = targets_of(rewards, [0.0] * len(rewards), tau)
    assert abs(float(targets.exp().mean()) - 1) < 1e-9


@given(weighted(), taus)
def test_self_normalized_targets_have_weighted_mean_one_under_exp(case, tau):
    shares = torch.tensor(case[1], dtype=torch.float64).softmax(0)
    assert abs(float((shares * targets_of(*case, tau).exp()).sum()) - 1) < 1e-9


@given(weighted(), taus)
def test_reference_weighted_targets_with_their_weights_sum_to_one_under_exp(case, tau):
    weights = torch.tensor(case[1], dtype=torch.float64)
    targets = targets_of(*case, tau, normalised=False)
    assert abs(float((weights + targets).exp().sum()) - 1) < 1e-9


@given(weighted(), taus, st.floats(0.1, 10), st.booleans())
def test_rewards_and_tau_scaled_together_change_no_target(case, tau, factor, normalised):
    rewards, weights = case
    scaled = targets_of([factor * r for r in rewards], weights, factor * tau, normalised=normalised)
    plain = targets_of(rewards, weights, tau, normalised=normalised)
    torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=1e-9)


@given(rewards_lists, taus)
def test_monte_carlo_lies_between_the_mean_and_the_maximum_of_the_rewards_over_tau(rewards, tau):
    value = log_z(rewards, [0.0] * len(rewards), tau)
    mean = sum(rewards) / len(rewards) / tau
    assert mean - 1e-9 <= value <= max(rewards) / tau + 1e-9


@given(weighted(), taus)
def test_reference_weighted_lies_within_log_n_above_its_largest_term(case, tau):
    largest = max(r / tau + w for r, w in zip(*case, strict=True))
    value = log_z(*case, tau, normalised=False)
    assert largest - 1e-9 <= value <= largest + math.log(len(case[0])) + 1e-9


@given(st.lists(st.floats(100, 500), min_size=1, max_size=8))
def test_float32_stays_finite_where_the_naive_formula_overflows(rewards):
    values = torch.tensor(rewards)
    zeros = torch.zeros_like(values)
    estimate = estimate_partition(values, zeros, zeros.long(), 1, tau=1.0)
    assert torch.isinf(values.exp().mean().log())
    assert estimate.log_z.isfinite().all()


distinct = st.lists(st.integers(-50, 50), min_size=2, max_size=16, unique=True)


def sorted_row(rewards):
    return torch.tensor(sorted(rewards), dtype=torch.float64)[None]


@given(distinct, st.floats(0.05, 10))
def test_log_z_of_distinct_samples_is_the_log_mean_over_the_quantiles_that_can_come(samples, tau):
    fresh = sorted_row([min(samples) - 1, *(sample + 0.5 for sample in samples)])
    possible = quantiles(fresh, sorted_row(samples))
    expected = (possible / tau).logsumexp(1) - math.log(len(samples) + 1)
    assert float(quantile_log_z(sorted_row(samples), tau=tau)) == pytest.approx(float(expected))


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=16), st.floats(0.05, 10))
def test_only_the_order_of_the_rewards_counts_for_quantiles(samples, tau):
    before, after = sorted_row(samples), sorted_row([math.exp(sample) for sample in samples])
    places = quantiles(before, before)
    assert (places.diff() >= 0).all()
    assert 0 < places.min() <= 0.5 <= places.max() < 1
    assert torch.equal(places, quantiles(after, after))
    assert torch.equal(quantile_log_z(before, tau=tau), quantile_log_z(after, tau=tau))


@given(weighted(), taus, st.floats(-3, 3))
def test_a_constant_added_to_every_reward_adds_constant_over_tau_to_log_z(case, tau, shift):
    rewards, weights = case
    moved = log_z([r + shift for r in rewards], weights, tau)
    assert abs(moved - log_z(rewards, weights, tau) - shift / tau) < 1e-8 * (1 + abs(shift / tau))


@given(weighted(), taus)
def test_log_z_lies_between_the_smallest_and_the_largest_reward_over_tau(case, tau):
    rewards, weights = case
    value = log_z(rewards, weights, tau)
    assert min(rewards) / tau - 1e-9 <= value <= max(rewards) / tau + 1e-9


@given(weighted(), taus, st.floats(-20, 20))
def test_a_constant_added_to_every_log_weight_changes_nothing(case, tau, shift):
    rewards, weights = case
    moved = log_z(rewards, [w + shift for w in weights], tau)
    assert abs(moved - log_z(rewards, weights, tau)) < 1e-8


@given(rewards_lists, taus)
def test_equal_weights_make_self_normalized_monte_carlo(rewards, tau):
    equal = log_z(rewards, [-1.7] * len(rewards), tau)
    assert abs(equal - log_z(rewards, [0.0] * len(rewards), tau)) < 1e-9


@given(rewards_lists, taus)
def test_no_target_of_a_normalised_estimator_exceeds_log_n(rewards, tau):
    value = log_z(rewards, [0.0] * len(rewards), tau)
    assert max(rewards) / tau - value <= torch.tensor(float(len(rewards))).log() + 1e-9


@given(rewards_lists)
def test_for_a_large_tau_log_z_is_the_mean_reward_over_tau(rewards):
    mean = sum(rewards) / len(rewards)
    assert abs(log_z(rewards, [0.0] * len(rewards), 1e4) * 1e4 - mean) < 1e-2


@given(weighted(), taus, st.randoms())
def test_the_order_of_the_rows_does_not_matter(case, tau, rng):
    pairs = list(zip(*case, strict=True))
    shuffled = rng.sample(pairs, len(pairs))
    again = log_z([r for r, _ in shuffled], [w for _, w in shuffled], tau)
    assert abs(again - log_z(*case, tau)) < 1e-9


@given(st.lists(weighted(), min_size=1, max_size=5), taus)
def test_prompts_do_not_see_each_other(cases, tau):
    rewards = torch.tensor([r for case in cases for r in case[0]], dtype=torch.float64)
    weights = torch.tensor([w for case in cases for w in case[1]], dtype=torch.float64)
    group = torch.tensor([g for g, case in enumerate(cases) for _ in case[0]])
    together = estimate_partition(rewards, weights, group, len(cases), tau=tau).log_z
    alone = [log_z(*case, tau) for case in cases]
    torch.testing.assert_close(together, torch.tensor(alone, dtype=torch.float64))


@given(st.lists(st.floats(-700, 700), min_size=2, max_size=10))
def test_leaving_one_out_equals_summing_the_others(values):
    tensor = torch.tensor(values, dtype=torch.float64)
    group = torch.zeros(len(values), dtype=torch.long)
    expected = torch.stack(
        [torch.cat([tensor[:i], tensor[i + 1 :]]).logsumexp(0) for i in range(len(values))]
    )
    torch.testing.assert_close(leave_one_out_logsumexp(tensor, group, 1), expected)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=10))
def test_a_segment_is_summed_in_log_space_without_overflow(values):
    tensor = torch.tensor(values, dtype=torch.float64)
    got = segment_logsumexp(tensor, torch.zeros(len(values), dtype=torch.long), 1)
    torch.testing.assert_close(got, tensor.logsumexp(0, keepdim=True))
