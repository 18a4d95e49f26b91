"""The bound of a mean: against exact ones, and its error rate in simulation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from rpo_pipeline.core.bounds import lower_bound
from tests.simulation import DIFFERENCES, false_promotions

NUM_SERIES = 2000
NUMBERS = st.lists(st.floats(-3, 3, width=16), min_size=1, max_size=20)


def bound(values, worst, error=0.025):
    numbers = torch.tensor(values, dtype=torch.float64)
    return float(lower_bound(numbers, torch.tensor(worst, dtype=torch.float64), error=error))


@pytest.mark.parametrize("error", [0.025, 1e-4, 1e-7])
@pytest.mark.parametrize(("successes", "size"), [(10, 40), (30, 40), (40, 40), (99, 100)])
def test_for_successes_and_failures_it_is_the_bound_of_clopper_and_pearson(successes, size, error):
    exact = beta.ppf(error, successes, size - successes + 1)
    assert bound([1.0] * successes + [0.0] * (size - successes), 0.0, error) == pytest.approx(
        exact, rel=2e-3
    )


@given(NUMBERS, st.floats(-6, 0), st.floats(1e-6, 0.2))
def test_it_lies_between_the_worst_and_the_mean(values, worst, error):
    found = bound(values, worst, error)
    assert min(worst, *values) - 1e-9 <= found <= sum(values) / len(values) + 1e-9


@given(NUMBERS, st.floats(0.1, 10), st.floats(-5, 5))
def test_it_moves_and_stretches_with_the_numbers(values, factor, shift):
    moved = bound([factor * value + shift for value in values], factor * -4 + shift)
    assert moved == pytest.approx(factor * bound(values, -4.0) + shift, abs=1e-6)


def test_a_worse_worst_and_a_smaller_error_lower_it_and_more_prompts_raise_it():
    values = [0.1, 0.4, 0.3, -0.2] * 10
    assert bound(values, -3.0) < bound(values, -1.0)
    assert bound(values, -1.0, 1e-3) < bound(values, -1.0, 1e-2)
    assert bound(values * 5, -1.0) > bound(values, -1.0)


def test_several_tables_at_once_give_what_each_gives_alone():
    tables = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    worst = torch.tensor([-1.0, -5.0, -9.0], dtype=torch.float64)
    together = lower_bound(tables, worst, error=0.01)
    alone = [lower_bound(*each, error=0.01) for each in zip(tables, worst, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("num_prompts", [40, 100])
@pytest.mark.parametrize("look", [1, 3])
@pytest.mark.parametrize("shape", DIFFERENCES)
def test_a_challenger_that_is_no_better_passes_at_most_1_5_times_as_often_as_said(
    shape, num_prompts, look
):
    found = false_promotions(shape, num_prompts=num_prompts, look=look, num_series=NUM_SERIES)
    # What so many series show of 1.5 times the nominal rate, with a chance below 0.001.
    allowed = 1.5 + 3 * (1.5 / (found.nominal * NUM_SERIES)) ** 0.5
    assert found.bound / found.nominal < allowed
