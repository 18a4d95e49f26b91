import pandas as pd
import pytest
from datasets import load_dataset
from trl.data_utils import is_conversational

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.chats import write_prompt
from rpo_pipeline.operations.export import export_feedback, read_feedback
from rpo_pipeline.params import SourceParams
from tests.conftest import read_log

CHAT = write_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}])
ROWS = [("p1", "a", "good", 2.0), ("p1", "a", "bad", -1.0), ("p1", "a", "so-so", -1.0)]


@pytest.fixture(params=["a", CHAT], ids=["texts", "chats"])
def feedback(request):
    table = pd.DataFrame(ROWS, columns=["prompt_id", "prompt", "response", "raw_reward"])
    unrated = pd.DataFrame([{"prompt_id": "p1", "response": "x", "raw_reward": None}])
    return pd.concat([table, unrated]).assign(split="train", prompt=request.param)


def read_back(path):
    rows, rejected = read_log(SourceParams(path=str(path)), folder=path.parent / "parts")
    assert rejected.empty
    return {(r["prompt"], r["response"], r["raw_reward"]) for r in rows.to_pylist()}


def test_unpaired_rows_are_labelled_by_the_mean_and_read_back_as_they_were(feedback, tmp_path):
    path = tmp_path / "kto.jsonl"
    assert export_feedback(feedback, path, "trl_kto", split="train") == 3
    loaded = load_dataset("json", data_files=str(path), split="train")
    assert loaded["label"] == [True, False, False]
    prompt = feedback["prompt"].iloc[0]
    assert read_back(path) == {(prompt, "good", 1), (prompt, "bad", -1), (prompt, "so-so", -1)}


def test_pairs_are_of_different_rewards_with_the_better_first(feedback, tmp_path):
    path = tmp_path / "dpo.jsonl"
    assert export_feedback(feedback, path, "trl_dpo", split="train") == 2
    prompt = feedback["prompt"].iloc[0]
    assert read_back(path) == {(prompt, "good", 1), (prompt, "bad", -1), (prompt, "so-so", -1)}


def test_nothing_to_write_is_an_error(feedback, tmp_path):
    with pytest.raises(DataError, match="0 rated rows"):
        export_feedback(feedback, tmp_path / "x.jsonl", "trl_dpo", split="test")


def test_beside_a_chat_every_prompt_is_one_so_that_the_columns_have_one_type(tmp_path):
    rows = [("p1", "a", "good", 1.0), ("p2", CHAT, "good", 1.0), ("p2", CHAT, "bad", -1.0)]
    table = pd.DataFrame(rows, columns=["prompt_id", "prompt", "response", "raw_reward"])
    path = tmp_path / "kto.jsonl"
    export_feedback(table.assign(split="train"), path, "trl_kto", split="train")
    loaded = load_dataset("json", data_files=str(path), split="train")
    assert all(is_conversational(line) for line in loaded)
    assert read_back(path) == {row[1:] for row in rows}


def test_rewards_that_are_all_equal_say_nothing_about_what_is_desirable(feedback, tmp_path):
    with pytest.raises(DataError, match="rewards that differ"):
        export_feedback(
            feedback.assign(raw_reward=1.0), tmp_path / "x.jsonl", "trl_kto", split="train"
        )
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_a_run_is_read_with_the_columns_that_an_export_needs(feedback, tmp_path):
    feedback.assign(more=1).to_parquet(tmp_path / "feedback.parquet")
    assert len(read_feedback(tmp_path / "feedback.parquet")) == len(feedback)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("README.md", "README.md cannot be read"),
        ("quarantine.parquet", "no table of feedback, it lacks prompt, prompt_id, raw_reward"),
        ("nosuch.parquet", "there is no file"),
    ],
)
def test_a_file_that_is_no_table_of_feedback_is_refused_by_name(tmp_path, name, said):
    (tmp_path / "README.md").write_text("# Read me")
    pd.DataFrame({"raw": ["x"]}).to_parquet(tmp_path / "quarantine.parquet")
    with pytest.raises(DataError, match=said):
        read_feedback(tmp_path / name)
