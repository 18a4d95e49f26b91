import pandas as pd
import pytest
from kedro.io import DatasetError

from rpo_pipeline.catalog import AtomicFileDataset, ModelDirectoryDataset, WorkspaceDataset
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.pipeline_registry import register_pipelines
from tests.conftest import ROOT


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


def damage(file, kind):
    """Leave a stored file as a bad disk, a full one or a person may."""
    content = file.read_bytes()
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "a link to nowhere":
        file.symlink_to("nowhere")
    else:
        kinds = {"nothing": b"", "half": content[: len(content) // 2], "noise": b"\xff\x00" * 99}
        file.write_bytes(kinds[kind])


DAMAGE = ["nothing", "half", "noise", "a folder", "a link to nowhere"]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("inner", ["pandas.ParquetDataset", "ibis.FileDataset", "json.JSONDataset"])
def test_a_damaged_file_is_named_with_its_remedy_or_is_as_good_as_missing(
    tmp_path, kind, inner, caplog
):
    file = tmp_path / "table"
    if inner.startswith("json"):
        file.write_text('{"a": [1, 2, 3], "b": "text"}')
    else:
        pd.DataFrame({"a": range(100)}).to_parquet(file)
    damage(file, kind)
    settings = {"filepath": str(file), "dataset": {"type": inner}, "remedy": "look into the attic"}
    if inner.startswith("ibis"):
        settings["dataset"]["file_format"] = "parquet"
    with pytest.raises(DatasetError, match=r"table cannot be read \(.+\): look into the attic"):
        AtomicFileDataset(**settings).load()
    caplog.clear()
    assert AtomicFileDataset(**settings, missing_ok=True, if_damaged="missing").load() is None
    assert "look into the attic" in caplog.text


def test_a_page_that_is_empty_is_damaged_as_well(tmp_path):
    (tmp_path / "page.html").touch()
    page = AtomicFileDataset(
        filepath=str(tmp_path / "page.html"), dataset={"type": "text.TextDataset"}
    )
    with pytest.raises(DatasetError, match="it is empty"):
        page.load()


def catalog_entries():
    return open_configuration(ROOT)["catalog"]


CANNOT_BE_MADE_AGAIN = {
    *("forgotten", "previous_splits", "previous_prompt_clusters"),
    *("previous_champion", "previous_registration", "previous_reference_log"),
}
AS_GOOD_AS_MISSING = {"run_ledger", "previous_consumed", "previous_labels", "refresh_outcome"}


def test_of_every_file_that_a_run_reads_before_it_writes_it_is_decided_what_damage_means():
    single = {k: e for k, e in catalog_entries().items() if e["type"].endswith("AtomicFileDataset")}
    read_first = {name for name, entry in single.items() if entry.get("missing_ok")}
    assert read_first == CANNOT_BE_MADE_AGAIN | AS_GOOD_AS_MISSING
    for name, entry in single.items():
        assert entry.get("if_damaged") == ("missing" if name in AS_GOOD_AS_MISSING else None), name
        assert bool(entry.get("remedy")) == (name in read_first), name


def test_all_other_files_are_written_by_a_node_that_can_write_them_again():
    made = {
        output for pipeline in register_pipelines().values() for output in pipeline.all_outputs()
    }
    by_refresh = {"refresh_decision", "refresh_outcome", "live_ratings", "run_ledger"}
    for name, entry in catalog_entries().items():
        if entry["type"].endswith("AtomicFileDataset") and not entry.get("missing_ok"):
            assert name.partition("@")[0] in {n.partition("@")[0] for n in made} | by_refresh, name


def test_no_two_files_differ_in_the_case_of_their_letters_alone():
    paths = {entry["filepath"] for entry in catalog_entries().values() if "filepath" in entry}
    assert len({path.casefold() for path in paths}) == len(paths)


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
