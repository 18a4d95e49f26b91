"""Folders behind links, shared with a group, or read-only."""

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage.places import ensure_writable, files_below, working_in


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_a_run_are_for_their_owner_alone(tmp_path):
    with working_in(tmp_path, tmp_path / "data"):
        (tmp_path / "data").mkdir()
        (tmp_path / "data/rows.parquet").touch()
    assert mode(tmp_path / "data/rows.parquet") == 0o600
    assert mode(tmp_path / "data") == 0o700


def test_a_data_folder_with_the_set_group_id_bit_shares_its_files_with_the_group(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o2770)
    with working_in(tmp_path, tmp_path / "data"):
        (tmp_path / "data/rows.parquet").touch()
    assert mode(tmp_path / "data/rows.parquet") == 0o660


def test_work_is_done_in_the_projects_folder_and_the_process_is_as_before_afterwards(tmp_path):
    folder, mask = Path.cwd(), os.umask(0o022)
    seen = []
    with suppress(ZeroDivisionError), working_in(tmp_path, tmp_path / "data"):
        seen.append(Path.cwd())
        _ = 1 / 0
    assert seen == [tmp_path]
    assert Path.cwd() == folder
    assert os.umask(mask) == 0o022


def test_files_are_found_through_links_once_and_a_loop_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/rows.parquet").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/02_intermediate").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/nowhere").symlink_to(tmp_path / "missing")
    found = list(files_below(tmp_path / "data"))
    assert found == [tmp_path / "data/02_intermediate/rows.parquet"]
    assert list(files_below(tmp_path / "missing")) == []


def test_a_file_where_a_folder_belongs_is_named(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(DataError, match="a file is where the folder belongs"):
        ensure_writable(tmp_path / "data")
    with pytest.raises(DataError, match=r"a file is where a folder belongs.*globals.yml"):
        ensure_writable(tmp_path / "data/03_primary")


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DataError, match="it is a link that leads nowhere"):
        ensure_writable(tmp_path / "data")


AS_NOBODY = """
import os, sys
from pathlib import Path
from rpo_pipeline.errors import DataError
from rpo_pipeline.storage.places import ensure_writable
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    ensure_writable(Path(sys.argv[1]))
except DataError as err:
    print(err)
"""


def test_a_folder_of_somebody_else_is_named_before_any_work(tmp_path):
    tmp_path.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cannot be written to: this user may not write there" in said


def test_a_read_only_file_system_is_named(tmp_path):
    mount = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o ro none "$1" && exec "$2" -c "$3" "$1"',
    ]
    if subprocess.run([*mount, "x", tmp_path, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    command = [*mount, "x", tmp_path, sys.executable, AS_NOBODY.replace("== 0", "== -1")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "its file system is mounted read-only" in said
