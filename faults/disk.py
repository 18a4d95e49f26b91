"""A disk that is full when each kind of output is written. Needs root, for a small tmpfs."""

import errno
import hashlib
import shutil
import subprocess
from pathlib import Path

from faults.project import Project
from faults.table import Row

SIZE = "400m"
# Each kind of output: its node, what that would otherwise take as it is, arguments.
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "parts of the sources": ("read_sources", "smoke/02_intermediate/parts", ()),
    "a table": ("normalise_rewards", "", ()),
    "a model": ("prepare_reference", "", ("--params", "policy.reset_reference=true")),
    "shards of the cache": ("score_reference", "05_model_input/reference_cache", ()),
    "a training": ("train_policy", "", ()),
    "the report": ("render_report", "", ()),
    "a version": ("register_version", "smoke/07_model_output/registered_version.json", ()),
}
WORKSPACES = {"training", "reference_workspace", "parts"}


def disk(folder: Path) -> Row:
    """Run the whole pipeline, then each node on a full disk, then the whole pipeline again."""
    place = folder / "project"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return Row("a full disk", "", 0, [], "not tried: mounting a tmpfs needs root")
    try:
        project = Project.make(place)
        # The tracking database is elsewhere: its own full disk is an outage.
        project.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        assert project.run().code == 0
        problems = [problem for kind in KINDS for problem in _fill(project, kind)]
        again = project.run()
        # Two, because the note on the first was taken away to have a second one written.
        problems += (
            project.problems(None, versions=2) if again.code == 0 else [f"the end: {again.message}"]
        )
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
    return Row(
        f"a disk that is full when one of these is written: {', '.join(KINDS)}",
        "one sentence that says so, nothing half written, what was there stays; with room, the "
        "same run goes on",
        len(KINDS),
        problems,
    )


def _fill(project: Project, kind: str) -> list[str]:
    node, taken, arguments = KINDS[kind]
    if taken:
        path = project.folder / "data" / taken
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = _contents(project)
    ballast = project.folder / "ballast"
    _write_until_full(ballast)
    only = ("--runner", "SequentialRunner", "--from-nodes", node, "--to-nodes", node)
    ended = project.run(*only, *arguments)
    ballast.unlink()
    after = _contents(project)
    print(f"full for {kind}: {ended.code} {ended.message or ended.log[-500:]}", flush=True)
    problems = [f"{kind}: {name} changed" for name in before if after.get(name) != before[name]]
    if not ended.is_clear or "no space left" not in ended.message:
        problems.append(f"{kind}: exit code {ended.code}, {ended.message or 'no message'}")
    return problems


def _contents(project: Project) -> dict[str, str]:
    """Hash of each result; a workspace is no result."""
    files = [file for file in project.data.rglob("*") if file.is_file()]
    return {
        str(file.relative_to(project.data)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if not WORKSPACES & set(file.parts)
    }


def _write_until_full(file: Path) -> None:
    try:
        with file.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise
