"""Values as pandas, databases and spreadsheets spell them."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rpo_pipeline.ingestion.fields import ABSENT, is_missing, look_up, read_number, read_time

NAN = float("nan")


@pytest.mark.parametrize(
    "meta",
    [
        {"stars": 5},
        '{"stars": 5}',
        "{'stars': 5, 'text': 'it\\'s', 'none': None}",
        [("stars", 5)],
        [{"key": "stars", "value": 5}, {"key": "text", "value": "x"}],
        [{"name": "stars", "value": 5, "comment": None}],
    ],
    ids=["object", "JSON text", "Python text", "map", "pairs by key", "pairs by name"],
)
def test_a_field_is_found_in_an_object_however_the_log_holds_it(meta):
    assert look_up({"meta": meta}, "meta.stars") == 5
    assert look_up({"log": {"meta": meta}}, "log.meta.stars") == 5
    assert look_up({"meta": meta}, "meta.rating", ABSENT) is ABSENT


@pytest.mark.parametrize(
    "meta", ["[" * 100_000, "{" * 10_000 + "}", "{not an object}", "{1, 2}", "[1]", 3, None]
)
def test_what_only_looks_like_an_object_has_no_fields(meta):
    assert look_up({"meta": meta}, "meta.stars", ABSENT) is ABSENT


def test_a_name_given_twice_in_a_list_of_pairs_is_not_guessed():
    scores = [{"name": "stars", "value": 5}, {"name": "stars", "value": 1}]
    assert look_up({"scores": scores}, "scores.stars", ABSENT) is ABSENT


@pytest.mark.parametrize(
    "value",
    [None, NAN, Decimal("nan"), "", "  ", "NaN", "null", "None", "N/A", "<NA>", r"\N", "NaT"],
)
def test_a_missing_value_is_missing_however_it_is_spelled(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, False, "0", "nana", "no", [], {}])
def test_a_value_that_says_no_is_not_missing(value):
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (" 4.5 ", 4.5),
        (Decimal("0.1"), 0.1),
        ({"$numberInt": "5"}, 5),
        ("1e400", float("inf")),
        ("4,5", None),
        ("4/5", None),
        ("5 stars", None),
        ("1_000", None),
        (True, None),
        ([5], None),
    ],
)
def test_a_number_is_read_as_it_is_written_or_not_at_all(value, number):
    assert read_number(value) == number


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-05 08:00:00 UTC",
        "2026-01-05 08:00:00.000000 UTC",
        "2026-01-05 08:00:00.000000000 UTC",
        "2026-01-05 09:00:00.000 Europe/Paris",
        "2026-01-05T09:00:00+01:00[Europe/Paris]",
        "2026-01-05 08:00:00 +0000 UTC",
        "2026-01-05 10:00 +02",
        "2026/01/05 08:00:00",
        "Mon, 05 Jan 2026 08:00:00 GMT",
        "Mon, 05 Jan 2026 09:00:00 +0100",
        "05/Jan/2026:08:00:00 +0000",
        "Mon Jan 05 08:00:00 2026",
        "1767600000",
        1767600000.0,
        1.7676e18,
        "1.7676e9",
        {"$date": "2026-01-05T08:00:00Z"},
        {"$date": {"$numberLong": "1767600000000"}},
        datetime(2026, 1, 5, 8),
    ],
    ids=str,
)
def test_an_instant_is_read_however_it_is_written_out(value):
    assert read_time(value) == datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "01/02/2026 10:00",
        "Mon, 05 Jan 2026 09:00:00 CEST",
        "2026-01-05 08:00 Mars/Olympus",
        "2026-01-05 08:00 America",
        "2026-13-05",
        "2026" + " " * 100_000 + "x",
        0,
        -1e9,
        1e300,
        True,
        [2026],
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_could_be_several_times_or_none_is_not_guessed(value):
    assert read_time(value) is None


def test_a_day_is_its_first_moment():
    assert read_time(date(2026, 1, 5)) == read_time("20260105") == datetime(2026, 1, 5, tzinfo=UTC)
