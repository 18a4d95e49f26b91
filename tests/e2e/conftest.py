"""Whole runs of the real command, in a project of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rpo_pipeline.ingestion.sample_data import write_sample_data
from tests.conftest import make_project

Run = Callable[..., subprocess.CompletedProcess]


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of Kedro in a folder, as a user does."""
    # MLflow leaves the last tracking server of a process in the environment.
    inherited = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def override(folder: Path, block: str, values: dict) -> None:
    """Change parameters of a project."""
    file = folder / "conf" / "smoke" / f"parameters_{block}.yml"
    merged = yaml.safe_load(file.read_text()) if file.exists() else {block: {}}
    merged[block] |= values
    file.write_text(yaml.safe_dump(merged))


def commit(folder: Path) -> None:
    """Put the project under version control."""
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for arguments in (["init", "-q"], ["add", "conf"], [*who, "commit", "-qm", "conf"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project after two runs: one that is promoted, and one whose challenger learned nothing."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
    write_sample_data(folder / "data/01_raw/feedback.jsonl", None, seed=0)
    commit(folder)
    # What a model of seconds reaches is no matter here; that it is compared and promoted is.
    easy = {"metric": "reward_mean", "against": "champion", "bound": "low"}
    lenient = {**easy, "direction": "above", "threshold": -9.0}
    override(folder, "promotion", {"gates": [lenient]})
    first = kedro(folder, "run", "--env", "smoke")
    override(folder, "promotion", {"gates": [{**lenient, "threshold": 0.0}]})
    splits = (folder / "data/smoke/03_primary/splits.parquet").read_bytes()
    reference = (folder / "data/smoke/06_models/reference/model.safetensors").stat().st_mtime_ns
    files = {
        path.name: path.read_bytes() for path in (folder / "data/smoke/08_reporting").glob("*.*")
    }
    second = kedro(folder, "run", "--env", "smoke", "--params", "training.learning_rate=0")
    return {
        "folder": folder,
        "first": first,
        "second": second,
        "first_reporting": files,
        "first_splits": splits,
        "first_reference": reference,
    }
