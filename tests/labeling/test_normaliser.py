"""From raw_reward to reward: what each normaliser promises, and who may influence it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.normaliser import MAX_KNOTS, adjust, fit_normaliser, normalise
from tests.conftest import block

KINDS = ["zscore", "rank", "per_prompt", "none"]
few = settings(max_examples=30)
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
entries = st.tuples(st.sampled_from("abcd"), numbers, st.sampled_from(["", "x", "xyz"]))


@st.composite
def tables(draw):
    """Rows of which prompt `a` has two that differ in raw reward and in length."""
    low = draw(numbers)
    rows = [("a", low, "xy"), ("a", low + 1, "xyxy"), *draw(st.lists(entries, max_size=9))]
    return pd.DataFrame(rows, columns=["prompt_id", "raw_reward", "response"])


def labeling(kind, **changes):
    return block("labeling", normaliser=kind, **changes)


def fit_and_apply(rows, kind, **changes):
    return normalise(rows, fit_normaliser(rows, labeling(kind, **changes)), rows)


def table(raw, prompt_ids="", responses=None):
    names = list(prompt_ids) or ["p"] * len(raw)
    texts = responses or ["x"] * len(raw)
    return pd.DataFrame({"prompt_id": names, "response": texts, "raw_reward": raw}, dtype=None)


@few
@given(tables())
def test_zscore_gives_train_rewards_mean_zero_and_population_deviation_one(rows):
    rewards = fit_and_apply(rows, "zscore")
    assert rewards.mean() == pytest.approx(0, abs=1e-6)
    assert rewards.std(ddof=0) == pytest.approx(1)


@few
@given(tables())
def test_ranks_have_mean_zero_and_lie_within_the_root_of_three(rows):
    rewards = fit_and_apply(rows, "rank")
    assert rewards.mean() == pytest.approx(0, abs=1e-9)
    assert rewards.abs().max() < 3**0.5


@few
@given(tables())
def test_per_prompt_gives_every_prompt_mean_zero_and_deviation_one_or_zero(rows):
    by_prompt = fit_and_apply(rows, "per_prompt").groupby(rows["prompt_id"])
    np.testing.assert_allclose(by_prompt.mean(), 0, atol=1e-6)
    differ = rows["raw_reward"].groupby(rows["prompt_id"]).nunique() > 1
    np.testing.assert_allclose(by_prompt.std(ddof=0), differ.astype(float), atol=1e-6)


def test_none_leaves_rewards_as_they_are():
    assert fit_and_apply(table([1.0, 2.0]), "none").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
@few
@given(rows=tables(), new=st.lists(numbers, min_size=2))
def test_a_higher_raw_reward_never_gives_a_lower_reward(kind, rows, new):
    normaliser = fit_normaliser(rows, labeling(kind, winsorise=[0.0, 0.9]))
    rewards = normalise(table(sorted(new), "a" * len(new)), normaliser, rows)
    assert (rewards.diff().dropna() >= -1e-9).all()


@pytest.mark.parametrize("kind", ["zscore", "rank", "per_prompt"])
@few
@given(rows=tables(), scale=st.sampled_from([0.5, 2.0, 8.0]), shift=st.integers(-64, 64))
def test_the_units_of_raw_rewards_do_not_matter(kind, rows, scale, shift):
    changed = rows.assign(raw_reward=rows["raw_reward"] * scale + shift)
    np.testing.assert_allclose(
        fit_and_apply(changed, kind), fit_and_apply(rows, kind), atol=1e-6, rtol=1e-6
    )


@few
@given(rows=tables())
def test_ranks_are_the_same_under_any_rising_change_of_raw_rewards(rows):
    changed = rows.assign(raw_reward=rows["raw_reward"] ** 3)
    np.testing.assert_allclose(fit_and_apply(changed, "rank"), fit_and_apply(rows, "rank"))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(train=tables(), test=tables())
def test_test_rows_never_influence_the_rewards_of_others(kind, train, test):
    both = pd.concat([train, test.assign(prompt_id="test " + test["prompt_id"])])
    normaliser = fit_normaliser(train, labeling(kind, winsorise=[0, 0.9], length_penalty=0.1))
    rewards = normalise(both, normaliser, both)[: len(train)]
    pd.testing.assert_series_equal(rewards, normalise(train, normaliser, train))


def test_new_text_takes_the_statistics_of_its_prompt_or_what_stands_in_for_them():
    logged = table([0.0, 2.0, 5.0, 1.0, 1.0], "aabcc")
    normaliser = fit_normaliser(logged, labeling("per_prompt"))
    assert normaliser["mean"] == 1.8
    pooled = normaliser["std"]
    assert pooled == pytest.approx(np.sqrt((1 + 1 + 0 + 0) / 4))
    new = table([3.0, 6.0, 2.0, 1.8 + pooled], "abcz")
    expected = [2.0, 1 / pooled, 1 / pooled, 1.0]
    assert normalise(new, normaliser, logged).tolist() == pytest.approx(expected)


def test_new_raw_rewards_are_placed_between_the_ranks_and_held_at_their_ends():
    normaliser = fit_normaliser(table([0.0, 1.0, 1.0, 3.0]), labeling("rank"))
    placed = normalise(table([-9.0, 0.5, 1.0, 2.0, 9.0]), normaliser, table([])) / 12**0.5 + 0.5
    assert placed.tolist() == pytest.approx([0.125, 0.3125, 0.5, 0.6875, 0.875])


@pytest.mark.parametrize("kind", KINDS)
def test_a_normaliser_is_readable_and_the_same_after_a_trip_through_json(kind):
    rng = np.random.default_rng(0)
    rows = table(rng.normal(size=9000), rng.integers(0, 99, 9000))
    rows["response"] = ["x" * n for n in rng.integers(1, 50, 9000)]
    normaliser = fit_normaliser(rows, labeling(kind, length_penalty="auto"))
    text = json.dumps(normaliser)
    assert len(text) < 60 * MAX_KNOTS
    again = normalise(rows, json.loads(text), rows)
    pd.testing.assert_series_equal(again, normalise(rows, normaliser, rows))
    if kind == "rank":
        exact = 12**0.5 * ((adjust(rows, normaliser).rank() - 0.5) / 9000 - 0.5)
        assert (again - exact).abs().max() < 0.01


def test_winsorising_draws_in_what_lies_beyond_the_quantiles_of_train():
    rows = table([-100.0, *range(1, 10), 100.0])
    rewards = fit_and_apply(rows, "none", winsorise=[0.1, 0.9])
    assert rewards.tolist() == [1.0, *range(1, 10), 9.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("raw", "seen"), [([], "no row has one"), ([0.5, 0.5], "all are 0.5")])
def test_rewards_that_do_not_differ_are_an_error(raw, seen, kind):
    with pytest.raises(DataError, match=seen):
        fit_normaliser(table(pd.Series(raw, dtype=float)), labeling(kind))


def test_quantiles_that_leave_one_value_are_named():
    with pytest.raises(DataError, match=r"winsorised.*labeling\.winsorise"):
        fit_normaliser(table([0.0, 1.0, 1.0, 1.0, 2.0]), labeling("none", winsorise=[0.4, 0.6]))


def test_per_prompt_needs_a_prompt_whose_responses_differ():
    with pytest.raises(DataError, match="no prompt of the 3 in train"):
        fit_normaliser(table([0.0, 1.0, 2.0, 2.0], "abcc"), labeling("per_prompt"))


def test_wrong_settings_are_refused():
    for wrong in ({"winsorise": [0.9, 0.1]}, {"length_penalty": "much"}, {"normaliser": "max"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            block("labeling", **wrong)


@pytest.mark.parametrize("kind", ["zscore", "per_prompt"])
@pytest.mark.parametrize("outlier", [100.0, 4000.0, -1e6, 1e30])
def test_one_outlier_does_not_decide_what_all_others_teach(kind, outlier, caplog):
    raw = np.random.default_rng(0).normal(size=400)
    names = [f"p{i // 4}" for i in range(400)]
    rows = table(raw, names)
    spoilt = rows.assign(raw_reward=[*raw[:-1], outlier])
    before, after = (fit_and_apply(one, kind)[:396] for one in (rows, spoilt))
    assert after.std() > before.std() / 3
    assert "1 of 400 train rows have a raw reward further than 10 times" in caplog.text


@pytest.mark.parametrize(
    "raw", [np.random.default_rng(0).normal(size=10_000), [1.0] * 99 + [-1.0], [0.0, 1e9]]
)
def test_rewards_without_outliers_are_as_they_are(raw, caplog):
    assert fit_normaliser(table(list(raw)), labeling("zscore"))["winsorise"] is None
    assert not caplog.text
