"""What a killed process leaves, and what the next run makes of it."""

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage.durable import (
    clear_abandoned,
    link_or_copy,
    put_in_place,
    put_new,
    replacing,
    temporary_sibling,
)
from rpo_pipeline.storage.processes import start_ticks

KILLED = """
import os, signal
from pathlib import Path
from rpo_pipeline.storage.durable import temporary_sibling
target = Path({target!r})
made = temporary_sibling(target, kind={kind!r})
if {kind!r} == "old":
    target.rename(made)
else:
    made.write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(target, kind):
    script = KILLED.format(target=str(target), kind=kind)
    subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ})


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "06_models" / "reference"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_half_written_file_of_a_killed_process_goes_and_the_old_one_stays(tmp_path):
    table = tmp_path / "rewards.parquet"
    table.write_text("old")
    kill_while_writing(table, "new")
    assert len(list(tmp_path.iterdir())) == 2
    clear_abandoned(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_a_killed_process_had_moved_aside_goes_back(tmp_path, model):
    kill_while_writing(model, "old")
    assert not model.exists()
    clear_abandoned(tmp_path)
    assert [path.name for path in model.parent.iterdir()] == ["reference"]
    assert (model / "config.json").read_text() == "{}"


def test_a_folder_that_was_replaced_before_the_kill_is_the_new_one(tmp_path, model):
    kill_while_writing(model, "old")
    prepared = temporary_sibling(model)
    prepared.mkdir()
    (prepared / "config.json").write_text("new")
    put_in_place(prepared, model)
    clear_abandoned(tmp_path)
    assert [path.name for path in model.parent.iterdir()] == ["reference"]
    assert (model / "config.json").read_text() == "new"


def test_what_a_process_still_writes_is_left_alone(tmp_path):
    half = temporary_sibling(tmp_path / "rewards.parquet")
    half.write_text("half")
    of_an_older_version = tmp_path / f".labels-new-{os.getpid()}-0123abcd.parquet"
    of_an_older_version.write_text("half")
    clear_abandoned(tmp_path)
    assert half.exists()
    assert of_an_older_version.exists()


def test_what_a_process_left_whose_id_is_given_again_goes(tmp_path):
    ticks = start_ticks(os.getpid())
    left = tmp_path / f".rewards-new-{os.getpid()}t{ticks - 1}-0123abcd.parquet"
    left.write_text("half")
    clear_abandoned(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_replaces_a_target_is_in_its_place_or_leaves_nothing(tmp_path, kind):
    target = tmp_path / "made"

    def make(path, text):
        if kind == "folder":
            path.mkdir()
        (path / "text" if kind == "folder" else path).write_text(text)

    def content():
        return [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]

    for text in ("old", "new"):
        with replacing(target) as prepared:
            make(prepared, text)
        assert content() == [text]
    with suppress(ZeroDivisionError), replacing(target) as prepared:
        make(prepared, "half")
        _ = 1 / 0
    assert content() == ["new"]


@pytest.fixture
def without(monkeypatch):
    """Lets a call of the operating system fail as some file systems let it."""

    def without(call, number):
        def refusing(*_, **__):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, call, refusing)

    return without


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_where_there_are_no_hard_links_files_are_copied(tmp_path, without, number):
    without("link", number)
    (tmp_path / "weights").write_text("weights")
    link_or_copy(tmp_path / "weights", tmp_path / "staged")
    assert (tmp_path / "staged").read_text() == "weights"
    put_new(tmp_path / "staged", tmp_path / "new")
    assert not (tmp_path / "staged").exists()
    with pytest.raises(FileExistsError):
        put_new(tmp_path / "weights", tmp_path / "new")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_is_no_error_and_a_failing_one_is(tmp_path, without, number):
    (tmp_path / "prepared").write_text("new")
    without("fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        put_in_place(tmp_path / "prepared", tmp_path / "table")
    without("fsync", number)
    put_in_place(tmp_path / "prepared", tmp_path / "table")
    assert (tmp_path / "table").read_text() == "new"


def test_a_folder_where_a_file_belongs_is_kept_and_named(tmp_path):
    (tmp_path / "table.parquet").mkdir()
    (tmp_path / "table.parquet/precious").touch()
    (tmp_path / "prepared").write_text("new")
    with pytest.raises(DataError, match=r"table.parquet is a folder.*move the folder away"):
        put_in_place(tmp_path / "prepared", tmp_path / "table.parquet")
    assert (tmp_path / "table.parquet/precious").exists()


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    for name, make in (("table", Path.touch), ("model", Path.mkdir)):
        elsewhere = tmp_path / "big disk" / name
        elsewhere.parent.mkdir(exist_ok=True)
        make(elsewhere)
        target = tmp_path / name
        target.symlink_to(elsewhere)
        prepared = temporary_sibling(target)
        assert prepared.parent == elsewhere.parent
        make(prepared)
        put_in_place(prepared, target)
        assert target.is_symlink()
        assert [path.name for path in elsewhere.parent.glob(".*")] == []


def test_what_a_killed_process_left_behind_a_link_goes_too(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/03_primary").symlink_to(tmp_path / "elsewhere")
    kill_while_writing(tmp_path / "data/03_primary/rewards.parquet", "new")
    clear_abandoned(tmp_path / "data")
    assert list((tmp_path / "elsewhere").iterdir()) == []
