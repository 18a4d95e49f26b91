import json
from pathlib import Path

import pytest

from rpo_pipeline.ingestion.sample_data import PRODUCTS, write_sample_data
from rpo_pipeline.params import RatingParams, SourceParams
from tests.conftest import read_log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "raw" / "feedback.jsonl"
    write_sample_data(path, None, seed=0)
    return path


def read(path):
    ratings = [
        RatingParams(column="thumbs", values={"up": 1, "down": -1}),
        RatingParams(column="stars", scale=(1, 5)),
    ]
    rows, quarantine = read_log(
        SourceParams(path=str(path), ratings=ratings), folder=path.parent / "parts"
    )
    return rows.to_pandas(), quarantine


def test_the_committed_log_is_what_the_generator_writes(log):
    assert log.read_bytes() == (ROOT / "data/01_raw/feedback.jsonl").read_bytes()


def test_about_400_prompts_have_one_to_eight_responses_half_of_them_rated(log):
    rows, _ = read(log)
    responses = rows.groupby("prompt_id")["row_id"].nunique()
    assert 380 <= len(responses) <= 401
    assert (responses.min(), responses.max()) == (1, 8)
    assert 0.45 < rows["raw_reward"].notna().mean() < 0.55


def test_some_lines_are_broken_on_purpose_in_several_ways(log):
    _, quarantine = read(log)
    assert 10 < len(quarantine) < 60
    assert quarantine["reason"].nunique() >= 5


def test_good_responses_name_the_product_of_their_prompt(log):
    rows, _ = read(log)
    loved = rows[rows["raw_reward"] == 1]
    product = loved["prompt"].map(lambda text: next((p for p in PRODUCTS if p in text), "-"))
    named = [p in r for p, r in zip(product, loved["response"], strict=True)]
    assert sum(named) / len(named) > 0.4


def test_a_number_of_rows_is_kept_exactly_and_starts_like_the_whole_log(log, tmp_path):
    part = tmp_path / "part.jsonl"
    assert write_sample_data(part, 123, seed=0)["lines"] == 123
    assert log.read_bytes().startswith(part.read_bytes())


def test_another_seed_writes_another_log(log, tmp_path):
    other = tmp_path / "other.jsonl"
    write_sample_data(other, 50, seed=1)
    assert not log.read_bytes().startswith(other.read_bytes())


def test_more_tickets_than_the_sample_has_can_be_written(tmp_path):
    path = tmp_path / "long.jsonl"
    written = write_sample_data(path, 5000, seed=3)
    lines = path.read_text().splitlines()
    assert written["lines"] == len(lines) == 5000
    assert written["tickets"] > 1000
    assert json.loads(lines[0])["prompt"]
