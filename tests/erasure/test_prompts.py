"""Erasing among links, damaged tables and kills, in a project that was made by hand."""

import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpo_pipeline.erasure.prompts import forget
from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.quarantine import QUARANTINE_SCHEMA
from tests.conftest import ROOT

SECRET, OTHER = "My name is Zanzibar-Quetzal.", "Hello?"
ID, OTHER_ID = "a" * 32, "b" * 32
FORGOTTEN = "data/03_primary/forgotten.parquet"


def write(file, table):
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_parquet(file, index=False)


@pytest.fixture
def project(tmp_path):
    """What a run makes of one prompt that is to go and one that stays."""
    for name in ("base", "sample"):
        shutil.copytree(ROOT / "conf" / name, tmp_path / "conf" / name)
    data = tmp_path / "data"
    rows = {
        "prompt_id": [ID, OTHER_ID],
        "row_id": ["r0", "r1"],
        "prompt": [SECRET, OTHER],
        "origin": ["log.jsonl:1", "log.jsonl:2"],
    }
    part = data / "02_intermediate/parts/0"
    write(part / "rows.parquet", {**rows, "split_point": [0.1, 0.2]})
    pq.write_table(QUARANTINE_SCHEMA.empty_table(), part / "quarantine.parquet")
    write(data / "03_primary/feedback.parquet", {**rows, "split": ["train", "test"]})
    write(data / "04_feature/rewards.parquet", {"row_id": ["r0", "r1"], "reward": [1.0, 2.0]})
    cache = data / "05_model_input/reference_cache/logps-0"
    write(cache / "shard-0.parquet", {"key": ["k", "l"], "prompt_id": [ID, OTHER_ID]})
    (data / "08_reporting").mkdir()
    (data / "08_reporting/report.html").write_text(f"<p>{SECRET}</p>")
    (data / "06_models/reference").mkdir(parents=True)
    (data / "06_models/reference/config.json").write_text("{}")
    return tmp_path


KEEPS = ["source log.jsonl:1", "weights data/06_models/reference"]


def names_of(folder, words):
    """Files, through links, that hold one of some words, also inside Parquet."""
    found = set()
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            file = Path(place) / name
            text = file.read_bytes().decode(errors="replace")
            if name.endswith(".parquet"):
                text += str(pq.read_table(file).to_pylist())
            found |= {name} if any(word in text for word in words) else set()
    return found


def test_everything_goes_and_what_a_person_has_to_erase_is_named_again_by_every_later_call(project):
    assert forget([ID], project).left == KEEPS
    assert names_of(project / "data", [SECRET]) == set()
    assert names_of(project / "data", [ID, "r0"]) == {"forgotten.parquet"}
    assert names_of(project / "data", [OTHER])
    later = forget([ID], project)
    assert (later.erased, later.left) == ([], KEEPS)


def killed_at(call, project):
    """Whether the erasure was killed before its n-th change of the disk."""
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    calls = 0

    def dying(change):
        def changed(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **keywords)

        return changed

    os.replace, os.unlink = dying(os.replace), dying(os.unlink)
    forget([ID], project)
    os._exit(0)


def test_an_erasure_that_is_killed_at_any_moment_is_finished_by_the_next_one(project, tmp_path):
    call = 1
    while True:
        copy = tmp_path.with_name(f"{tmp_path.name}-{call}")
        shutil.copytree(project, copy)
        if not killed_at(call, copy):
            break
        # Once anything was erased, a call for another prompt, or for none, finishes it as well.
        asked = [ID] if call == 1 else [[], [OTHER_ID]][call // 2 % 2]
        result = forget(asked, copy)
        assert set(KEEPS) <= set(result.left), call
        assert names_of(copy / "data", [SECRET]) == set(), call
        quarantine = pd.read_parquet(copy / "data/02_intermediate/parts/0/quarantine.parquet")
        assert len(quarantine) == (2 if OTHER_ID in asked else 1), call
        call += 2
    assert call >= 9


@pytest.mark.parametrize("place", ["02_intermediate", "03_primary/feedback.parquet", "."])
def test_links_are_followed_out_of_the_data_folder(project, tmp_path_factory, place):
    elsewhere = tmp_path_factory.mktemp("big disk") / "moved"
    path = project / "data" / place if place != "." else project / "data"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert forget([ID], project).left == KEEPS
    assert path.is_symlink()
    assert names_of(project / "data", [SECRET]) == set()
    assert names_of(elsewhere.parent, [SECRET]) == set()


def test_a_link_that_leads_back_is_followed_once(project):
    (project / "data/02_intermediate/again").symlink_to(project / "data")
    assert forget([ID], project).left == KEEPS


def test_a_report_behind_a_link_goes_with_the_link(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("reports") / "report.html"
    report = project / "data/08_reporting/report.html"
    report.rename(elsewhere)
    report.symlink_to(elsewhere)
    forget([ID], project)
    assert not elsewhere.exists()
    assert not report.is_symlink()


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\x00\xff" * 500, None])
def test_a_damaged_table_is_named_and_the_others_are_erased(project, damage):
    file = project / "data/05_model_input/targets.parquet"
    if damage is None:
        file.symlink_to("/proc/self/mem")  # opens, and cannot be read
    else:
        file.write_bytes(damage)
    result = forget([ID], project)
    assert any("data/05_model_input/targets.parquet" in line for line in result.left)
    assert not result.is_complete
    assert set(KEEPS) <= set(result.left)
    file.unlink()
    assert names_of(project / "data", [SECRET]) == {
        "forgotten.parquet"
    }  # the intent, until it is done
    assert forget([], project).is_complete
    assert names_of(project / "data", [SECRET]) == set()


def test_a_damaged_memory_stops_the_erasure_before_anything_is_lost(project):
    (project / FORGOTTEN).write_bytes(b"")
    with pytest.raises(DataError, match="restore it from a backup"):
        forget([ID], project)
    (project / FORGOTTEN).unlink()
    assert forget([ID], project).left == KEEPS


def test_a_damaged_memory_beside_whole_ones_is_named_and_not_replaced(project):
    shutil.copytree(ROOT / "conf/t5", project / "conf/t5")
    other = project / "data/t5/03_primary/forgotten.parquet"
    other.parent.mkdir(parents=True)
    other.touch()
    result = forget([ID], project)
    assert any("data/t5/03_primary/forgotten.parquet" in line for line in result.left)
    assert other.read_bytes() == b""
    assert pd.read_parquet(project / FORGOTTEN)["prompt_id"].tolist() == [ID]


def test_prompts_that_an_earlier_version_erased_stay_erased(project):
    write(project / FORGOTTEN, {"prompt_id": ["c" * 32]})
    forget([ID], project)
    known = pd.read_parquet(project / FORGOTTEN)
    assert known["prompt_id"].tolist() == [ID, "c" * 32]
    assert known["is_done"].all()


def test_environments_that_never_ran_are_complete(project):
    shutil.copytree(ROOT / "conf/t5", project / "conf/t5")
    result = forget([ID], project)
    assert (result.left, result.is_complete) == (KEEPS, True)


def test_what_a_killed_run_left_half_written_is_erased_too(project):
    half = project / "data/03_primary/.feedback-new-999999-0123abcd.parquet"
    half.write_text(SECRET)
    forget([ID], project)
    assert not half.exists()


def test_columns_of_the_memory_are_those_that_ingestion_reads(project):
    forget([ID], project)
    assert pq.read_schema(project / FORGOTTEN).field("prompt_id").type == pa.string()


def test_an_environment_that_cannot_be_read_is_named_and_the_others_are_erased(project):
    broken = project / "conf/broken"
    broken.mkdir()
    (broken / "globals.yml").write_text("data: [")
    result = forget([ID], project)
    assert not result.is_complete
    assert any("environment broken" in line for line in result.left)
    assert names_of(project / "data", [SECRET]) == {"forgotten.parquet"}  # until it is finished
    shutil.rmtree(broken)
    assert forget([], project).is_complete
    assert names_of(project / "data", [SECRET]) == set()
