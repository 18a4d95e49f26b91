"""Estimates against a truth that is known: the table of docs/method.md in bounds."""

from pathlib import Path

import pytest

from tests.simulation import SIZES, SPREADS, simulate, table

METHOD = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.mark.parametrize("spread", SPREADS)
def test_more_responses_bring_log_z_nearer_to_the_truth(spread):
    errors = [simulate(n, spread, prior=False).rmse for n in SIZES]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", SIZES)
def test_the_prior_never_makes_log_z_worse(n, spread):
    with_prior, without = (simulate(n, spread, prior=prior) for prior in (True, False))
    assert with_prior.rmse < 1.01 * without.rmse
    assert abs(with_prior.bias) <= abs(without.bias) + 0.01


@pytest.mark.parametrize("spread", [0.5, 1.0])
@pytest.mark.parametrize("n", SIZES)
def test_the_jackknife_error_with_a_prior_is_the_real_one_where_tau_is_not_small(n, spread):
    error = simulate(n, spread, prior=True)
    assert error.jackknife == pytest.approx(error.rmse, rel=0.1)


def test_a_single_response_without_a_prior_is_off_by_half_the_squared_spread():
    assert simulate(1, 2.0, prior=False).bias == pytest.approx(-(2.0**2) / 2, abs=0.1)


def test_the_table_of_the_docs_is_the_one_that_the_command_prints():
    assert table() in METHOD.read_text()
