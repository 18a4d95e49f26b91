import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.evaluation import holm
from rpo_pipeline.search.comparison_draws import Draws, holm_of, interval_of

NOISE = np.random.default_rng(0).normal(size=(3, 40))


def test_the_first_draw_is_the_sample_and_the_others_vary_as_its_mean_would():
    means = Draws.of(NOISE, 4000).means(NOISE)
    assert means[0] == pytest.approx(NOISE.mean())
    by_prompt, by_seed = NOISE.mean(axis=0), NOISE.mean(axis=1)
    variance = by_prompt.var() / 40 + by_seed.var() / 3
    assert means[1:].std() ** 2 == pytest.approx(variance, rel=0.6)
    assert means[1:].std() ** 2 > by_prompt.var() / 40


def test_a_draw_equals_the_mean_over_the_resampled_seeds_and_prompts():
    draws = Draws.of(NOISE, 3)
    seeds, prompts = draws.seeds[2].astype(int), draws.prompts[2].astype(int)
    drawn = np.repeat(np.repeat(NOISE, seeds, axis=0), prompts, axis=1)
    assert drawn.shape == NOISE.shape
    assert draws.means(NOISE)[2] == pytest.approx(drawn.mean())


def test_prompts_without_a_number_are_left_out_of_each_draw():
    values = np.where(np.arange(40) < 5, 1.0, np.nan) * np.ones((3, 1))
    means = Draws.of(values, 50).means(values)
    known = means[np.isfinite(means)]
    assert len(known) > 45
    assert known == pytest.approx(1.0)


def test_an_interval_without_enough_resamples_has_no_ends_and_no_p_value():
    few = np.array([1.0, *[np.nan] * 10, *[1.0] * 90])
    assert interval_of(few) == {"value": 1.0, "low": None, "high": None}
    assert interval_of(np.array([np.nan, 1.0, 1.0]))["value"] is None
    assert holm_of({"first": np.zeros(101), "few": few}) == {}


def test_a_p_value_counts_the_resamples_on_the_other_side_of_0_and_is_never_0():
    clear = np.ones(100)
    assert holm_of({"first": np.zeros(100), "clear": clear}) == {"clear": 2 / 100}
    unsure = np.array([0.1, *[1.0] * 59, *[-1.0] * 40])
    assert holm_of({"first": np.zeros(100), "unsure": unsure})["unsure"] == pytest.approx(0.82)


def test_holm_by_hand():
    # 0.01 * 3, then max with 0.03 * 2, then max with 0.04 * 1.
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert adjusted == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


@given(st.dictionaries(st.text(), st.floats(0, 1), min_size=1))
def test_an_adjusted_p_value_is_never_smaller_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= adjusted[name] <= 1 for name, p in p_values.items())
    order = sorted(p_values, key=p_values.__getitem__)
    assert sorted(adjusted.values()) == [adjusted[name] for name in order]
