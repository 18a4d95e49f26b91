import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rpo_pipeline.operations.triggers import Situation, count_new, decide
from tests.conftest import block

NEEDED = {
    "when": "needed",
    "min_new_rows": 100,
    "min_new_ratings": 20,
    "max_drift": 0.5,
    "max_age_days": 30,
}
NOTHING = {"unfinished": None, "new_rows": 99, "new_ratings": 19, "drift": 0.5, "age_days": 30.0}


def decision(changes=None, **policy):
    return decide(Situation(**NOTHING | (changes or {})), block("refresh", **NEEDED | policy))


def test_numbers_at_their_limits_are_no_work_and_each_is_named():
    decided = decision()
    assert decided["work"] is False
    assert decided["reasons"] == [
        "99 new rows (refresh.min_new_rows: 100)",
        "19 new ratings (refresh.min_new_ratings: 20)",
        "0.5 standard deviations of drift in the labels (refresh.max_drift: 0.5)",
        "30 days since the champion or the last run (refresh.max_age_days: 30)",
    ]
    assert decided["numbers"] == NOTHING


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"new_rows": 100}, "100 new rows"),
        ({"new_ratings": 20}, "20 new ratings"),
        ({"drift": 0.6}, "0.6 standard deviations"),
        ({"age_days": 31.0}, "31 days"),
        ({"unfinished": "the run of yesterday failed"}, "the run of yesterday failed"),
    ],
)
def test_each_trigger_alone_is_work_and_the_only_reason(change, reason):
    decided = decision(change)
    assert decided["work"] is True
    assert len(decided["reasons"]) == 1
    assert decided["reasons"][0].startswith(reason)


def test_a_trigger_that_is_null_does_not_count():
    assert not decision({"new_rows": 10**6}, min_new_rows=None)["work"]


def test_what_was_not_measured_is_no_work_and_said():
    reasons = decision({"drift": None, "age_days": None})["reasons"]
    assert "days since the champion or the last run were not measured" in reasons[-1]


def test_always_is_work_whatever_the_numbers():
    assert decision(when="always")["reasons"] == ["refresh.when is `always`"]


def test_needed_without_a_trigger_is_refused():
    with pytest.raises(ValidationError, match="needs one of min_new_rows"):
        block("refresh", when="needed")


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0, 2), st.floats(0, 90))
def test_more_of_anything_never_takes_work_away(rows, ratings, drift, age):
    numbers = {"new_rows": rows, "new_ratings": ratings, "drift": drift, "age_days": age}
    if decision(numbers)["work"]:
        for name in numbers:
            assert decision({**numbers, name: numbers[name] + 1})["work"]


def part(path, rows, rated):
    return {"path": path, "rows": rows, "rated": rated}


def test_new_is_what_files_grew_by_and_what_new_files_hold():
    consumed = {"parts": [part("a", 10, 3), part("gone", 99, 99), part("shrunk", 9, 9)]}
    parts = [part("a", 12, 8), part("b", 5, 0), part("shrunk", 1, 1)]
    assert count_new(parts, consumed) == (7, 5)
    assert count_new(parts, None) == (18, 9)
