"""What a killed process leaves, and what the next run makes of it."""

import os
import subprocess
import sys

import pytest

from rpo_pipeline.io.durable import clear_abandoned, put_in_place, temporary_sibling

KILLED = """
import os, signal
from pathlib import Path
from rpo_pipeline.io.durable import temporary_sibling
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
    clear_abandoned(tmp_path)
    assert half.exists()
