import pandas as pd
import pyarrow.parquet as pq
import pytest

from rpo_pipeline.erasure.forgotten import name_matches, take_out


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "row_id": ["r0", "r1", "r2", None],
            "prompt_id": ["a", "a", "b", "c"],
            "position": [0, 1, 2, 3],
            "split": pd.Categorical(["train", "test", "train", "train"]),
        }
    )


def erase(file, prompt_ids=(), row_ids=()):
    columns = pq.read_schema(file).names
    matches = name_matches(columns, prompt_ids={*prompt_ids}, row_ids={*row_ids})
    return 0 if matches is None else take_out(file, matches)


def test_rows_go_by_their_own_name_or_their_prompts_and_the_others_stay_as_they_are(
    table, tmp_path
):
    table.to_parquet(tmp_path / "t.parquet")
    assert erase(tmp_path / "t.parquet", ["a"], ["r2"]) == 3
    left = pd.read_parquet(tmp_path / "t.parquet").reset_index(drop=True)
    expected = table.iloc[3:].reset_index(drop=True).assign(position=[0])
    pd.testing.assert_frame_equal(left, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_file_without_such_rows_is_not_written(table, tmp_path):
    table.to_parquet(tmp_path / "t.parquet")
    before = (tmp_path / "t.parquet").stat()
    assert erase(tmp_path / "t.parquet", ["x"], ["a"]) == 0
    assert (tmp_path / "t.parquet").stat() == before


def test_tables_without_names_and_empty_columns_have_nothing_to_erase(tmp_path):
    pd.DataFrame({"tau": [1.0]}).to_parquet(tmp_path / "t.parquet")
    assert erase(tmp_path / "t.parquet", ["a"]) == 0
    pd.DataFrame({"row_id": [], "mismatched_prompt_id": []}).to_parquet(tmp_path / "t.parquet")
    assert erase(tmp_path / "t.parquet", ["a"], ["r0"]) == 0
