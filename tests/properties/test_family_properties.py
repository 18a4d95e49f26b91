"""What must hold of the losses that join responses or weigh rows, for any numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import huber_loss

from rpo_pipeline.core.losses import (
    awr_loss,
    infonca_loss,
    nca_loss,
    rpo_loss,
    sft_loss,
    tgo_loss,
    weighted_rpo_loss,
)
from tests.properties.test_objective_properties import nats, positive, tables

rhos = st.floats(0, 100) | st.just(float("inf"))


def weighted(logps, ref_logps, targets, *, rho, level=0.0, rows=slice(None)):
    """The losses of some rows of one prompt, with the mean residual over all of them."""
    mean = (logps - ref_logps - targets).mean().detach()
    ones = torch.ones_like(targets)
    return weighted_rpo_loss(
        logps[rows],
        ref_logps[rows],
        targets[rows],
        (mean * ones)[rows],
        weight=(ones / (1 + len(ones) * rho))[rows],
        level=torch.tensor(level, dtype=targets.dtype),
    )


def infonca(logps, ref_logps, shares, beta, rows=slice(None)):
    log_odds = beta * (logps - ref_logps).detach()
    normaliser = log_odds.logsumexp(0) - math.log(len(log_odds))
    normalisers = normaliser.expand_as(log_odds)
    return infonca_loss(logps[rows], ref_logps[rows], shares[rows], normalisers[rows], beta=beta)


def gradient(losses, logps):
    return torch.autograd.grad(losses.sum(), logps)[0]


@given(tables(3), st.floats(0, 100), nats)
def test_the_weighted_loss_is_generalised_least_squares(table, rho, level):
    """Against the inverse of the covariance of residuals that share an error of variance rho."""
    logps, ref_logps, targets = table
    logps.requires_grad_()
    losses = weighted(logps, ref_logps, targets, rho=rho, level=level)
    n = len(targets)
    covariance = torch.eye(n, dtype=torch.float64) + rho * torch.ones(n, n, dtype=torch.float64)
    residuals = (logps - ref_logps - targets - level).detach()
    pulled = torch.linalg.solve(covariance, residuals)
    torch.testing.assert_close(losses.sum().item(), (residuals @ pulled / 2).item())
    torch.testing.assert_close(gradient(losses, logps), pulled, rtol=1e-6, atol=1e-6)


@given(tables(3))
def test_without_an_error_of_log_z_the_weighted_loss_is_that_of_rpo(table):
    logps = table[0].requires_grad_()
    losses, plain = weighted(*table, rho=0.0), rpo_loss(*table)
    torch.testing.assert_close(losses.sum(), plain.sum())
    torch.testing.assert_close(gradient(losses, logps), gradient(plain, logps))


@given(tables(3, st.floats(-5, 5)), st.floats(0, 10), positive)
def test_a_huber_delta_bounds_the_distance_from_the_level_of_the_prompt(table, rho, delta):
    """Its gradient is that of the loss alone, on the target that the weights move."""
    logps, ref_logps, targets = table
    logps.requires_grad_()
    ones = torch.ones_like(targets)
    mean, weight = (logps - ref_logps - targets).mean().detach(), ones / (1 + len(ones) * rho)
    joined = weighted_rpo_loss(
        *table, mean * ones, weight=weight, level=0.5 * ones[0], huber_delta=delta
    )
    moved = targets + mean - weight * (mean - 0.5)
    alone = rpo_loss(logps, ref_logps, moved, huber_delta=delta)
    torch.testing.assert_close(gradient(joined, logps), gradient(alone, logps))


@given(tables(3), nats)
def test_with_an_infinite_error_a_shift_of_log_z_changes_nothing(table, shift):
    logps, ref_logps, targets = table
    logps.requires_grad_()
    before, after = (
        weighted(logps, ref_logps, some, rho=float("inf")) for some in (targets, targets + shift)
    )
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)
    residuals = (logps - ref_logps - targets).detach()
    torch.testing.assert_close(gradient(before, logps), residuals - residuals.mean())


@given(tables(3), positive)
def test_beyond_a_huber_delta_the_loss_and_the_gradient_are_those_of_torch(table, delta):
    logps, ref_logps, targets = table
    logps.requires_grad_()
    losses = rpo_loss(*table, huber_delta=torch.full_like(targets, delta))
    expected = huber_loss(logps - ref_logps, targets, reduction="none", delta=delta)
    torch.testing.assert_close(losses, expected)
    pull = gradient(losses, logps)
    torch.testing.assert_close(pull, gradient(expected, logps))
    assert (pull.abs() <= delta).all()
    at_rest = rpo_loss(ref_logps + targets, ref_logps, targets, huber_delta=delta)
    torch.testing.assert_close(at_rest, torch.zeros_like(targets), rtol=0, atol=1e-9)


@given(tables(3))
def test_without_a_huber_delta_the_loss_is_the_square(table):
    logps, ref_logps, targets = table
    logps.requires_grad_()
    losses, square = rpo_loss(*table), 0.5 * (logps - ref_logps - targets).square()
    torch.testing.assert_close(losses, square)
    torch.testing.assert_close(gradient(losses, logps), gradient(square, logps))


@given(tables(3), rhos, nats, positive, st.data())
def test_a_divided_prompt_has_the_loss_and_the_gradient_of_the_whole(table, rho, level, beta, data):
    logps, ref_logps, numbers = table
    logps.requires_grad_()
    cut = data.draw(st.integers(0, len(numbers)))
    shares = numbers.softmax(0) * len(numbers)
    for whole, *parts in (
        [
            weighted(logps, ref_logps, numbers, rho=rho, level=level, rows=rows)
            for rows in (slice(None), slice(cut), slice(cut, None))
        ],
        [
            infonca(logps, ref_logps, shares, beta, rows)
            for rows in (slice(None), slice(cut), slice(cut, None))
        ],
    ):
        together = torch.cat(parts)
        torch.testing.assert_close(together, whole)
        torch.testing.assert_close(gradient(together, logps), gradient(whole, logps))


@given(tables(3, st.floats(-5, 5)), positive)
def test_infonca_is_the_cross_entropy_of_rewards_and_log_ratios(table, beta):
    logps, ref_logps, rewards = table
    logps.requires_grad_()
    n, probabilities = len(rewards), rewards.softmax(0)
    ours = infonca(logps, ref_logps, n * probabilities, beta)
    log_softmax = (beta * (logps - ref_logps)).log_softmax(0)
    direct = -n * (probabilities * log_softmax).sum()
    torch.testing.assert_close(ours.sum() + n * math.log(n), direct)
    torch.testing.assert_close(gradient(ours, logps), gradient(direct, logps))


@given(tables(2, st.floats(-5, 5)), positive)
def test_nca_is_at_rest_where_the_log_ratio_is_the_log_of_the_share(table, beta):
    ref_logps, rewards = table
    shares = rewards.softmax(0) * len(rewards)
    logps = (ref_logps + shares.log() / beta).requires_grad_()
    losses = nca_loss(logps, ref_logps, shares, beta=beta)
    assert gradient(losses, logps).abs().max() < 1e-9
    moved = nca_loss(logps + 0.1, ref_logps, shares, beta=beta)
    assert (moved >= losses).all()


@given(tables(3, st.floats(-50, 50)), positive, st.floats(-5, 5))
def test_tgo_raises_what_is_above_the_threshold_and_lowers_the_rest(table, beta, threshold):
    logps, ref_logps, rewards = table
    logps.requires_grad_()
    losses = tgo_loss(logps, ref_logps, rewards, threshold=threshold, beta=beta)
    pull = gradient(losses, logps)
    assert (pull[rewards > threshold] <= 0).all()
    assert (pull[rewards <= threshold] >= 0).all()
    at_rest = tgo_loss(ref_logps, ref_logps, rewards, threshold=threshold, beta=beta)
    expected = (1 + (rewards - threshold).abs()) * math.log(2)
    torch.testing.assert_close(at_rest, expected)


@given(tables(2))
def test_awr_weighs_the_likelihood(table):
    logps, rewards = table
    weights = rewards.softmax(0)
    torch.testing.assert_close(awr_loss(logps, weights), weights * sft_loss(logps))


@pytest.mark.parametrize("beta", [0.05, 5.0])
def test_far_log_ratios_give_finite_losses_and_gradients_in_float32(beta):
    logps = torch.tensor([-3e4, 2e4, 10.0]).requires_grad_()
    ref_logps, rewards = torch.zeros(3), torch.tensor([1.0, -1.0, 0.0])
    for losses in (
        rpo_loss(logps, ref_logps, rewards, huber_delta=beta),
        weighted(logps, ref_logps, rewards, rho=float("inf")),
        tgo_loss(logps, ref_logps, rewards, threshold=0.0, beta=beta),
        nca_loss(logps, ref_logps, rewards.softmax(0) * 3, beta=beta),
        infonca(logps, ref_logps, rewards.softmax(0) * 3, beta),
    ):
        assert torch.isfinite(losses).all()
        assert torch.isfinite(gradient(losses, logps)).all()
