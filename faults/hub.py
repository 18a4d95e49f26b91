"""A model hub that cannot be reached."""

import shutil
import time
from pathlib import Path

from faults.project import Project
from faults.table import Row

NAME = "somebody/some-model"
QUICK_SECONDS = 60
REFERENCE = ("--to-nodes", "prepare_reference")


def hub(folder: Path) -> list[Row]:
    """Ask for a hub id that is nowhere, and for one that is in the local cache."""
    project = Project.make(folder / "project")
    home = folder / "hub"
    assert project.run(*REFERENCE).code == 0
    made = folder / "model"
    shutil.copytree(project.data / "06_models/reference", made)
    project.override("policy", name_or_path=NAME, from_config=None, reset_reference=True)
    # The address of nobody: the same here, and where a hub could be reached.
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home)}
    rows = []
    for cached in (False, True):
        if cached:
            _put_into_cache(made, home)
        started = time.monotonic()
        ended = project.run(*REFERENCE, **environment)
        seconds = time.monotonic() - started
        print(f"cached {cached}, {seconds:.0f} s: {ended.message or ended.log[-300:]}", flush=True)
        if cached:
            expected = "the cached model is used"
            problems = [] if ended.code == 0 else [ended.message or ended.log[-400:]]
        else:
            expected = "a clear error, soon"
            problems = [] if ended.is_clear and NAME in ended.message else [ended.log[-400:]]
        if seconds > QUICK_SECONDS:
            problems.append(f"only after {seconds:.0f} s")
        what = "in" if cached else "not in"
        rows.append(
            Row(
                f"a hub that cannot be reached, the model {what} the local cache",
                expected,
                1,
                problems,
                f"{seconds:.0f} s with all that comes before",
            )
        )
    return rows


def _put_into_cache(model: Path, home: Path) -> None:
    commit = "0" * 40
    place = home / "hub" / f"models--{NAME.replace('/', '--')}"
    shutil.copytree(model, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
