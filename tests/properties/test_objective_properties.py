"""What must hold of every objective for any log-probabilities, rewards and values."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from rpo_pipeline.core.losses import dro_loss, kto_loss, kto_reference_point, rpo_loss

nats = st.floats(-50, 50)
positive = st.floats(0.01, 5)


@st.composite
def tables(draw, num_columns, values=nats):
    """Columns of one to six rows, float64."""
    num_rows = draw(st.integers(1, 6))
    column = st.lists(values, min_size=num_rows, max_size=num_rows)
    return [torch.tensor(draw(column), dtype=torch.float64) for _ in range(num_columns)]


@st.composite
def kto_rows(draw, values=nats):
    logps, ref_logps = draw(tables(2, values))
    labels = draw(st.lists(st.booleans(), min_size=len(logps), max_size=len(logps)))
    point = torch.tensor(draw(st.floats(0, 20)), dtype=torch.float64)
    return logps, ref_logps, torch.tensor(labels), point


def kto(rows, beta=0.3, desirable_weight=1.0, undesirable_weight=1.0):
    return kto_loss(
        *rows, beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight
    )


@given(tables(3))
def test_loss_and_gradients_are_zero_where_the_log_ratio_is_the_reward_less_the_value(table):
    ref_logps, scaled_rewards, values = table
    values.requires_grad_()
    logps = (ref_logps + (scaled_rewards - values)).detach().requires_grad_()
    for losses in (
        rpo_loss(logps, ref_logps, scaled_rewards - values),
        dro_loss(logps, ref_logps, scaled_rewards, values),
    ):
        assert losses.max() < 1e-20
        gradients = torch.autograd.grad(losses.sum(), [logps, values])
        assert max(gradient.abs().max() for gradient in gradients) < 1e-10


@given(tables(4))
def test_policy_and_value_of_dro_get_the_same_gradient_the_residual(table):
    logps, ref_logps, scaled_rewards, values = table
    logps.requires_grad_()
    values.requires_grad_()
    dro_loss(logps, ref_logps, scaled_rewards, values).sum().backward()
    residual = (logps - ref_logps - scaled_rewards + values).detach()
    torch.testing.assert_close(logps.grad, residual)
    torch.testing.assert_close(values.grad, residual)


@settings(max_examples=30)
@given(tables(4, st.floats(-5, 5)), kto_rows(st.floats(-5, 5)))
def test_gradients_are_those_of_finite_differences(table, rows):
    logps, ref_logps, scaled_rewards, values = table
    logps.requires_grad_()
    values.requires_grad_()
    assert gradcheck(rpo_loss, (logps, ref_logps, scaled_rewards))
    assert gradcheck(dro_loss, (logps, ref_logps, scaled_rewards, values))
    rows[0].requires_grad_()
    assert gradcheck(lambda logps: kto((logps, *rows[1:])), (rows[0],))


@given(tables(4), nats, positive)
def test_dro_takes_a_constant_in_every_reward_of_a_prompt_for_one_in_its_value(table, shift, tau):
    logps, ref_logps, rewards, values = table
    before = dro_loss(logps, ref_logps, rewards / tau, values)
    after = dro_loss(logps, ref_logps, (rewards + shift * tau) / tau, values + shift)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@given(kto_rows(), nats)
def test_kto_sees_the_log_ratio_less_the_reference_point_and_nothing_else(rows, shift):
    logps, ref_logps, desirable, point = rows
    before = kto(rows)
    torch.testing.assert_close(kto((logps + shift, ref_logps + shift, desirable, point)), before)
    torch.testing.assert_close(kto((logps + shift, ref_logps, desirable, point + shift)), before)


@given(kto_rows())
def test_kto_raises_desirable_responses_and_lowers_the_others_always(rows):
    logps, desirable = rows[0].requires_grad_(), rows[2]
    kto(rows).sum().backward()
    assert (logps.grad[desirable] < 0).all()
    assert (logps.grad[~desirable] > 0).all()


@given(kto_rows(), positive, positive)
def test_the_weights_of_kto_scale_its_losses(rows, desirable_weight, undesirable_weight):
    plain = kto(rows)
    weighted = kto(rows, 0.3, desirable_weight, undesirable_weight)
    expected = torch.where(rows[2], desirable_weight * plain, undesirable_weight * plain)
    torch.testing.assert_close(weighted, expected)


@given(kto_rows())
def test_the_two_sides_of_kto_mirror_each_other(rows):
    logps, ref_logps, desirable, point = rows
    mirrored = kto((2 * (ref_logps + point) - logps, ref_logps, ~desirable, point))
    torch.testing.assert_close(mirrored, kto(rows))
    torch.testing.assert_close(
        kto(rows) + kto((logps, ref_logps, ~desirable, point)), 0 * logps + 1
    )


@given(kto_rows(st.floats(-1e5, 1e5)), tables(4, st.floats(-1e5, 1e5)))
def test_losses_and_gradients_are_finite_in_float32_for_extreme_log_ratios(rows, table):
    logps, ref_logps, scaled_rewards, values = (column.float() for column in table)
    policy, reference = rows[0].float().requires_grad_(), rows[1].float()
    point = kto_reference_point(policy, reference)
    losses = [
        kto((policy, reference, rows[2], point), beta=5.0),
        dro_loss(logps.requires_grad_(), ref_logps, scaled_rewards, values.requires_grad_()),
    ]
    sum(part.sum() for part in losses).backward()
    for tensor in (*losses, policy.grad, logps.grad, values.grad):
        assert torch.isfinite(tensor).all()
