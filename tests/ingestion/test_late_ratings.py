"""A serving log, and ratings that refer to it."""

import json
from pathlib import Path

import ibis
import pytest
from pydantic import ValidationError

from rpo_pipeline.ingestion.feedback import account_rows, build_feedback, quarantine_conflicts
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.ingestion.rows import prompt_key
from rpo_pipeline.ingestion.sources import read_sources
from rpo_pipeline.params import RatingParams, SourceParams
from tests.conftest import read_log

SOURCE = SourceParams(
    path="served-*.jsonl",
    ratings_path="ratings/*.jsonl",
    key="response_id",
    ratings=[RatingParams(column="thumbs", values={"up": 1, "down": -1})],
)
SERVED = [
    {
        "response_id": f"r{i}",
        "prompt": f"prompt {i % 3}",
        "response": f"response {i}",
        "model_version": "7",
        "timestamp": f"2026-02-01T00:00:0{i}Z",
    }
    for i in range(6)
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratings").mkdir()
    write("served-1.jsonl", *SERVED[:4])
    write("served-2.jsonl", *SERVED[4:])


def write(path, *records):
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records))


def rate(response_id, thumbs, **fields):
    return {"response_id": response_id, "thumbs": thumbs, **fields}


def read(**options):
    rows, rejected = read_log(SOURCE, folder=Path("parts"), **options)
    return rows.to_pylist(), rejected.to_dict("records")


def account():
    rows, rejected = read_log(SOURCE, folder=Path("parts"))
    table = ibis.memtable(rows)
    splits = table.select("prompt_id").distinct().mutate(split=ibis.literal("train"), leaked=False)
    feedback = build_feedback(table, splits, "mean")
    quarantine = quarantine_conflicts(table, rejected, "mean")
    counts = account_rows(table, rejected, quarantine, feedback, "mean")
    return counts, feedback.execute().set_index("response")


def test_a_rating_takes_its_text_and_version_from_the_log_and_its_time_from_itself():
    write("ratings/a.jsonl", rate("r4", "down", timestamp="2026-02-09", prompt="not this"))
    rows, rejected = read()
    assert rejected == []
    assert len(rows) == 7
    rated = rows[-1]
    assert (rated["prompt"], rated["response"]) == ("prompt 1", "response 4")
    assert (rated["raw_reward"], rated["model_version"]) == (-1.0, "7")
    assert rated["timestamp"].day == 9
    assert rated["origin"] == "ratings/a.jsonl:1"
    assert [row["position"] for row in rows] == list(range(7))


def test_ratings_that_come_later_rate_rows_that_were_read_before(caplog):
    _, feedback = account()
    assert feedback["raw_reward"].isna().all()
    assert "no file of ratings matches 'ratings/*.jsonl' yet" in caplog.text
    write("ratings/a.jsonl", rate("r1", "up"), rate("r1", "up"), rate("r1", "down"))
    parts = read_sources([SOURCE], Path("parts"))
    assert [(part["rows"], part["rated"]) for part in parts] == [(4, 0), (2, 0), (3, 3)]
    counts, feedback = account()
    assert feedback.loc["response 1", "num_ratings"] == 3
    assert feedback.loc["response 1", "raw_reward"] == pytest.approx(1 / 3)
    assert feedback["raw_reward"].notna().sum() == 1
    # Two equal ratings without a time are one record of two people.
    account_of_all = {"read": 9, "kept": 6, "quarantined": 0, "exact_duplicates": 1, "merged": 2}
    assert counts == account_of_all


def test_an_unknown_response_is_quarantined_and_the_account_adds_up():
    broken = {"response_id": "r2", "thumbs": "sideways"}
    records = [rate("r0", "up"), rate("nobody", "up"), broken, {"thumbs": "up"}, rate("r3", None)]
    write("ratings/a.jsonl", *records)
    _, rejected = read()
    assert {(one["line"], one["reason"]) for one in rejected} == {
        (2, "unknown_response"),
        (3, "reward_not_a_number"),
        (4, "unknown_response"),
        (5, "missing_rating"),
    }
    assert json.loads(rejected[-1]["raw"]) == {"response_id": "nobody", "thumbs": 1.0}
    counts, _ = account()
    assert (counts["read"], counts["kept"]) == (11, 6)
    assert (counts["quarantined"], counts["merged"]) == (4, 1)


def test_a_name_that_two_different_responses_go_by_names_neither():
    write("served-2.jsonl", SERVED[0], {**SERVED[5], "response_id": "r1"})
    write("ratings/a.jsonl", rate("r0", "up"), rate("r1", "up"))
    rows, rejected = read()
    assert [row["response"] for row in rows if row["raw_reward"]] == ["response 0"]
    assert [one["reason"] for one in rejected] == ["unknown_response"]


def test_a_forgotten_prompt_is_not_brought_back_by_its_ratings():
    write("ratings/a.jsonl", rate("r0", "up", comment="prompt 0 again"), rate("r1", "up"))
    forgotten = Privacy(forgotten=frozenset({prompt_key("prompt 0")}))
    rows, rejected = read(privacy=forgotten)
    assert "prompt 0" not in {row["prompt"] for row in rows}
    assert "prompt 0" not in json.dumps(rejected)


def test_ratings_find_the_log_that_an_earlier_source_has_read():
    Path("more").mkdir()
    write("ratings/a.jsonl", rate("r1", "up"))
    write("more/a.jsonl", rate("r5", "down"))
    more = SOURCE.model_copy(update={"ratings_path": "more/*.jsonl"})
    rows, rejected = read_log(SOURCE, more, folder=Path("parts"))
    found = {row["response"]: row["raw_reward"] for row in rows.to_pylist() if row["raw_reward"]}
    assert found == {"response 1": 1, "response 5": -1}
    assert len(rows) == len(SERVED) + 2
    assert rejected.empty


def test_a_name_may_be_a_number_in_one_file_and_a_text_in_the_other():
    write("served-2.jsonl", {**SERVED[5], "response_id": 12})
    Path("ratings/a.csv").write_text("response_id,thumbs\n12,up\n")
    rows, rejected = read_log(
        SOURCE.model_copy(update={"ratings_path": "ratings/*.csv"}), folder=Path("parts")
    )
    assert rejected.empty
    assert rows.to_pylist()[-1]["response"] == "response 5"


@pytest.mark.parametrize(
    "change", [{"key": None}, {"ratings_path": None}, {"ratings_path": "hf://a/b"}]
)
def test_a_key_without_ratings_and_ratings_without_a_key_are_refused(change):
    with pytest.raises(ValidationError, match="ratings_path"):
        SourceParams(**SOURCE.model_dump() | change)
