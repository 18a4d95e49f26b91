"""A disk that fills up while each kind of output is written. Needs root, for a small tmpfs."""

import errno
import subprocess
from pathlib import Path

from faults.project import Ended, Project
from faults.table import Row

SIZE = "400m"
# One node for each kind of output, in the order in which they run.
NODES = {
    "read_sources": "parts and quarantine of the sources",
    "prepare_reference": "a model directory",
    "score_reference": "shards of the cache",
    "label_rows": "a table",
    "train_policy": "a checkpoint",
    "register_version": "the registry",
    "render_report": "the report",
}


def disk(folder: Path) -> Row:
    """Fill the disk as each of some nodes starts, make room, and run again."""
    project_folder = folder / "project"
    project_folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(project_folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return Row("a full disk", "", 0, [], "not tried: mounting a tmpfs needs root")
    try:
        project = Project.make(project_folder)
        problems = [problem for node in NODES for problem in _fill(project, node)]
        again = project.run()
        problems += project.problems(None) if again.code == 0 else [f"the end: {again.message}"]
    finally:
        subprocess.run(["umount", "--lazy", str(project_folder)], check=True)
    kinds = ", ".join(NODES.values())
    return Row(
        f"a disk that is full while one of these is written: {kinds}",
        "an error that says so, the old output as it was; with room, the same run goes on",
        len(NODES),
        problems,
    )


def _fill(project: Project, node: str) -> list[str]:
    process = project.start()
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if f"Running node: {node}:" in line:
            _write_until_full(project.folder / "ballast")
            break
    ended = Ended.of(process)
    (project.folder / "ballast").unlink(missing_ok=True)
    ended = Ended(ended.code, log + ended.log)
    print(f"full at {node}: {ended.message or ended.log[-500:]}", flush=True)
    if not ended.is_clear:
        print(ended.log[-4000:], flush=True)
        return [f"{node}: exit code {ended.code}, {ended.message or 'no message'}"]
    return [] if "space" in ended.message else [f"{node}: {ended.message}"]


def _write_until_full(file: Path) -> None:
    try:
        with file.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise
