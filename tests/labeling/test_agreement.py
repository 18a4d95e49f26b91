import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.labeling.agreement import agreement, label_report
from rpo_pipeline.labeling.labeling import label_feedback
from tests.conftest import block
from tests.labeling.test_labelers import COLUMN, LENGTH, RULES, feedback


def compare(labels, ratings, prompts):
    return agreement(pd.Series(labels), pd.Series(ratings), pd.Series(prompts))


def test_pairs_are_those_of_one_prompt_that_people_rated_differently_and_ties_count_half():
    # a: 3 > 1 right; b: equal ratings, no pair; c: 3 > 2 tied, 3 > 1 wrong, 2 > 1 wrong.
    found = compare([2, 1, 5, 9, 4, 4, 7], [3, 1, 2, 2, 3, 2, 1], list("aabbccc"))
    assert (found["n"], found["num_pairs"]) == (7, 4)
    assert found["pair_accuracy"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)


def test_what_cannot_be_compared_is_null():
    assert compare([], [], []) == {"n": 0, "spearman": None, "num_pairs": 0, "pair_accuracy": None}
    assert compare([1.0, 1.0], [0.0, 1.0], ["a", "b"])["spearman"] is None


ROW = st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from("abc"))


@given(st.lists(ROW, min_size=1, max_size=30))
def test_pairs_are_counted_as_if_they_were_written_down(rows):
    pairs = [(a, b) for a in rows for b in rows if a[2] == b[2] and a[1] > b[1]]
    right = [1.0 if a[0] > b[0] else 0.5 if a[0] == b[0] else 0.0 for a, b in pairs]
    found = compare(*zip(*rows, strict=True))
    assert found["num_pairs"] == len(pairs)
    assert found["pair_accuracy"] == (pytest.approx(np.mean(right)) if pairs else None)


def test_many_responses_to_one_prompt_take_no_memory_for_their_pairs():
    ratings = np.random.default_rng(0).permutation(100_000)
    tracemalloc.start()
    found = compare(ratings, ratings, ["a"] * 99_999 + ["b"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found["num_pairs"], found["pair_accuracy"]) == (99_999 * 99_998 // 2, 1)
    assert peak < 1e8


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("abc")), min_size=2, max_size=30))
def test_ratings_agree_with_themselves_and_disagree_with_their_opposite(rows):
    ratings, prompts = zip(*rows, strict=True)
    same = compare(ratings, ratings, prompts)
    opposite = compare([-rating for rating in ratings], ratings, prompts)
    if same["num_pairs"]:
        assert (same["pair_accuracy"], opposite["pair_accuracy"]) == (1, 0)
    if same["spearman"] is not None:
        assert same["spearman"] == pytest.approx(1)
        assert opposite["spearman"] == pytest.approx(-1)


def report(table, *labelers, drift=None):
    labeling = block("labeling", labelers=list(labelers))
    return label_report(label_feedback(table, labeling, None), table, labeling, drift or {})


def test_the_report_counts_rows_by_labeler_and_compares_labelers_of_text_with_people():
    table = feedback(1.0, -1.0, 0.5, -0.5, None, None)
    found = report(table, COLUMN, RULES, drift={"rules": {"n": 2}})
    assert found["rows"] == {"column": 4, "rules": 2, "none": 0}
    (rules,) = found["labelers"]
    assert (rules["n"], rules["agreement"]["n"], rules["drift"]) == (6, 4, {"n": 2})
    assert rules["agreement"]["pair_accuracy"] == rules["longer_is_better"]["pair_accuracy"] == 1
    assert rules["disagreement"] is None


def test_the_report_tells_labelers_that_people_contradict_and_rows_without_reward():
    table = feedback(-1.0, 1.0, None)
    assert report(table, COLUMN, RULES)["labelers"][0]["agreement"]["pair_accuracy"] == 0
    assert report(table, COLUMN)["rows"] == {"column": 2, "none": 1}


@pytest.mark.parametrize(("name", "prefix"), [(None, ""), ("jury", "jury_")])
def test_the_report_holds_how_far_an_ensemble_disagrees(name, prefix):
    members = {"type": "ensemble", "name": name, "members": [RULES, LENGTH], "combine": "mean"}
    table = feedback(1.0, -1.0, None)
    labels = label_feedback(table, block("labeling", labelers=[COLUMN, members]), None)
    found = report(table, COLUMN, members)["labelers"][0]["disagreement"]
    assert found["mean"] == pytest.approx(labels[f"{prefix}disagreement"].mean())
    assert found["max"] >= found["mean"] > 0


def test_scale_and_offset_of_the_report_give_labels_the_mean_and_deviation_of_the_ratings():
    table = feedback(0.9, -0.3, 0.5, 0.1, None)
    (found,) = report(table, COLUMN, RULES)["labelers"]
    matched = RULES | found["on_the_scale_of_ratings"]
    labels = label_feedback(table, block("labeling", labelers=[COLUMN, matched]), None)
    rated = labels["labeler"] == "column"
    for moment in ("mean", "std"):
        moments = labels.loc[rated, ["raw_reward", "rules"]].agg(moment)
        assert moments["rules"] == pytest.approx(moments["raw_reward"])


@pytest.mark.parametrize(("scale", "is_warned_of"), [(1.0, False), (10.0, True), (0.1, True)])
def test_a_labeler_on_another_scale_than_the_ratings_is_warned_of(caplog, scale, is_warned_of):
    table = feedback(0.9, -1.3, 1.1, -1.6, None)
    report(table, COLUMN, RULES | {"scale": scale})
    assert ("times as far as ratings of the same rows" in caplog.text) is is_warned_of
