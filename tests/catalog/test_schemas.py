"""Schemas of stored tables: through a real catalog, with messages for people."""

import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.validation.exceptions import DataValidationError

from rpo_pipeline.catalog import table_schema
from rpo_pipeline.catalog.schemas import LABELS, REFERENCE_LOGPS
from rpo_pipeline.cli import explain
from rpo_pipeline.errors import DataError
from tests.conftest import ROOT

IDS = [f"{i:032x}" for i in range(3)]


def catalog(folder, name):
    """The shipped entry of a table, in a folder of its own."""
    entries = {}
    for file in sorted((ROOT / "conf/base").glob("catalog_*.yml")):
        entries |= yaml.safe_load(file.read_text().replace("${globals:data}", str(folder)))
    return DataCatalog.from_config({name: entries[name]})


def labels(**changes):
    table = {"row_id": IDS, "raw_reward": [0.0, 1.0, -1.0], "labeler": "rules", "extra": 1}
    return pd.DataFrame(table | changes)


def splits(**changes):
    table = {"prompt_id": IDS, "split": ["train", "train", "test"], "leaked": False}
    return pd.DataFrame(table | changes)


def test_a_right_table_passes_with_columns_of_its_own(tmp_path):
    stored = catalog(tmp_path, "labels")
    stored.save("labels", labels())
    pd.testing.assert_frame_equal(stored.load("labels"), labels())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw_reward": [0.0, float("inf"), 1.0]}, "1 rows of column raw_reward are not a finite"),
        ({"raw_reward": [0.0, None, None]}, "2 rows of column raw_reward have no value"),
        ({"raw_reward": ["a", "b", "c"]}, "column raw_reward cannot be checked"),
        ({"row_id": [IDS[0], IDS[0], IDS[1]]}, "2 rows of column row_id repeat another one's"),
        ({"row_id": ["x", *IDS[1:]]}, "content hash of 32 hexadecimal digits, such as 'x'"),
        ({"row_id": [1, 2, 3]}, "column row_id is not of type str"),
    ],
)
def test_a_wrong_table_is_never_written_and_the_message_says_what_is_wrong(
    tmp_path, changes, message
):
    with pytest.raises(DataValidationError) as error:
        catalog(tmp_path, "labels").save("labels", labels(**changes))
    text = explain(error.value)
    assert "table labels" in text
    assert message in text
    assert "see labeling.labelers; `kedro run --pipelines reward_labeling`" in text
    assert not list(tmp_path.rglob("*.parquet"))


def test_every_wrong_column_is_named_at_once():
    with pytest.raises(DataError, match=r"column labeler is missing; 1 rows of column raw_reward"):
        LABELS.validate(labels(raw_reward=[0.0, 1.0, None]).drop(columns="labeler"))


def test_single_precision_counts_as_a_number_and_an_empty_table_has_no_types():
    table = pd.DataFrame({"row_id": IDS, "logps": pd.Series([-1.0] * 3, dtype="float32")})
    table = table.assign(num_tokens=3, prompt_is_cut=False, response_is_cut=True)
    REFERENCE_LOGPS.validate(table)
    REFERENCE_LOGPS.validate(pd.DataFrame(columns=table.columns))
    with pytest.raises(DataError, match="1 rows of column logps are not a log-probability"):
        REFERENCE_LOGPS.validate(table.assign(logps=[-1.0, 0.5, -1.0]))


def test_an_ibis_expression_is_computed_once_checked_and_then_written(tmp_path):
    stored = catalog(tmp_path, "splits")
    (tmp_path / "03_primary").mkdir()
    splits().to_parquet(tmp_path / "03_primary/splits.parquet")
    table = stored.load("splits")
    stored.save("splits", table.filter(table.split == "train"))
    assert stored.load("splits").count().execute() == 2
    with pytest.raises(DataValidationError) as error:
        stored.save("splits", table.mutate(split=table.split.replace("train", "exam")))
    assert "2 rows of column split are not one of train, validation, test" in explain(error.value)
    assert stored.load("splits").count().execute() == 2


def test_a_file_changed_by_hand_is_refused_when_it_is_read(tmp_path):
    stored = catalog(tmp_path, "previous_splits")
    assert stored.load("previous_splits") is None
    (tmp_path / "03_primary").mkdir()
    splits(leaked=[True, False, None]).to_parquet(tmp_path / "03_primary/splits.parquet")
    with pytest.raises(DataValidationError) as error:
        stored.load("previous_splits")
    assert "1 rows of column leaked have no value" in explain(error.value)
    assert "put back the file of an earlier run" in explain(error.value)


def test_a_file_that_did_not_change_is_checked_once(tmp_path, monkeypatch):
    stored = catalog(tmp_path, "previous_splits")
    (tmp_path / "03_primary").mkdir()
    file = tmp_path / "03_primary/splits.parquet"
    splits().to_parquet(file)
    stored.load("previous_splits")
    with monkeypatch.context() as patch:
        patch.setattr(table_schema, "_checkable", None)
        stored.load("previous_splits")
    splits(leaked=[True, False, None]).to_parquet(file)
    with pytest.raises(DataValidationError):
        stored.load("previous_splits")
