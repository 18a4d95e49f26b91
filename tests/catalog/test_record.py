"""Records in JSON files."""

import json
from pathlib import Path

import pytest
from kedro.io import DatasetError

from rpo_pipeline.catalog import AtomicFileDataset
from rpo_pipeline.records import Candidate, Champion, Decision, Registration, Summary

NUMBERS = {"reward_mean": {"value": 0.5, "low": 0.25, "high": 0.75}}


@pytest.fixture
def dataset(tmp_path):
    def dataset(record):
        definition = {"type": "rpo_pipeline.catalog.RecordDataset", "record": record}
        return AtomicFileDataset(filepath=str(tmp_path / "record.json"), dataset=definition)

    return dataset


def summary():
    return Summary(
        num_prompts=40,
        reference=NUMBERS,
        challenger=NUMBERS,
        champion=None,
        difference={"vs_champion": None, "vs_reference": NUMBERS},
        look=1,
        gate=Decision(passed=True, baseline="reference", checks=({"metric": "reward_mean"},)),
    )


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("Champion", Champion("3", Path("models/m-1"))),
        ("Champion", Champion()),
        ("Registration", Registration("3", "m-1", "f1")),
        ("Summary", summary()),
        ("Candidate", Candidate(version="3", summary=summary())),
        ("Candidate", Candidate(version="3", path=Path("p"), champion=Champion("2", Path("q")))),
    ],
)
def test_a_record_comes_back_as_it_was(dataset, name, record):
    dataset(name).save(record)
    assert dataset(name).load() == record


def test_the_file_of_a_summary_is_flat_and_starts_with_the_numbers(dataset, tmp_path):
    dataset("Summary").save(summary())
    stored = json.loads((tmp_path / "record.json").read_text())
    assert list(stored)[:2] == ["num_prompts", "detectable_difference"]
    assert stored["gate"]["checks"] == [{"metric": "reward_mean"}]


@pytest.mark.parametrize(
    ("name", "stored", "record"),
    [
        ("Champion", {"version": None, "path": None}, Champion()),
        ("Registration", {}, Registration()),
        ("Candidate", {"version": "3", "summary": None}, Candidate(version="3")),
    ],
)
def test_a_file_of_an_earlier_release_is_read(dataset, tmp_path, name, stored, record):
    (tmp_path / "record.json").write_text(json.dumps(stored))
    assert dataset(name).load() == record


def test_a_file_that_holds_something_else_is_named_with_its_remedy(dataset, tmp_path):
    (tmp_path / "record.json").write_text('{"version": 3}')
    with pytest.raises(DatasetError, match=r"record.json cannot be read .* run the pipeline"):
        dataset("Registration").load()
