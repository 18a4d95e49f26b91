import pandas as pd
import pytest
from kedro.io import DatasetError

from rpo_pipeline.io import AtomicFileDataset, ModelDirectoryDataset, WorkspaceDataset


def parquet(path, **settings):
    return AtomicFileDataset(
        filepath=str(path), dataset={"type": "pandas.ParquetDataset"}, **settings
    )


def test_a_saved_table_is_loaded_again_and_leaves_no_temporary_file(tmp_path):
    table = pd.DataFrame({"a": [1, 2]})
    dataset = parquet(tmp_path / "deep" / "table.parquet")
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.parquet"]


def test_a_save_that_fails_leaves_the_old_file_as_it_was(tmp_path):
    dataset = parquet(tmp_path / "table.parquet")
    dataset.save(pd.DataFrame({"a": [1]}))
    with pytest.raises(DatasetError):
        dataset.save(pd.DataFrame({"a": [object()]}))
    assert dataset.load()["a"].tolist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_a_missing_file_is_none_where_it_may_be_missing_and_an_error_elsewhere(tmp_path):
    assert parquet(tmp_path / "no.parquet", missing_ok=True).load() is None
    with pytest.raises(DatasetError, match="run the pipeline that writes it"):
        parquet(tmp_path / "no.parquet").load()


def test_a_lazy_table_is_the_same_one_until_its_file_is_replaced(tmp_path):
    lazy = AtomicFileDataset(
        filepath=str(tmp_path / "table.parquet"),
        dataset={"type": "ibis.FileDataset", "file_format": "parquet"},
    )
    written = parquet(tmp_path / "table.parquet")
    written.save(pd.DataFrame({"a": [1]}))
    first = lazy.load()
    assert lazy.load() is first
    written.save(pd.DataFrame({"a": [1, 2]}))
    assert lazy.load().count().execute() == 2


def model_folder(path, weights="model.safetensors"):
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / weights).write_bytes(b"weights")
    return path


def test_a_model_directory_replaces_the_old_one_whole(tmp_path):
    dataset = ModelDirectoryDataset(filepath=str(tmp_path / "policy"))
    dataset.save(model_folder(tmp_path / "first"))
    (tmp_path / "policy" / "stale.txt").touch()
    dataset.save(model_folder(tmp_path / "second"))
    names = {path.name for path in dataset.load().iterdir()}
    assert names == {"config.json", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "policy"}


def test_a_model_saved_onto_itself_stays(tmp_path):
    folder = model_folder(tmp_path / "policy")
    ModelDirectoryDataset(filepath=str(folder)).save(folder)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_pickled_weights_are_refused(tmp_path):
    dataset = ModelDirectoryDataset(filepath=str(tmp_path / "policy"))
    with pytest.raises(DatasetError, match="only safetensors"):
        dataset.save(model_folder(tmp_path / "pickled", weights="pytorch_model.bin"))


def test_a_folder_without_a_config_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    dataset = ModelDirectoryDataset(filepath=str(tmp_path / "policy"))
    with pytest.raises(DatasetError, match="no model directory"):
        dataset.save(tmp_path / "empty")
    with pytest.raises(DatasetError, match="no model in"):
        dataset.load()


def test_a_workspace_is_made_when_asked_for_and_is_never_an_output(tmp_path):
    dataset = WorkspaceDataset(filepath=str(tmp_path / "work" / "here"))
    assert dataset.load().is_dir()
    with pytest.raises(DatasetError, match="never its output"):
        dataset.save("anything")
