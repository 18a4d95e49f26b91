"""Data ingestion as a user runs it: a generated log, a project of its own, one process per size."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    seconds: float
    """Of wall time, the start of Kedro included."""
    cpu_seconds: float
    peak_bytes: float


def ingest(rows: int) -> Cost:
    """Run ``data_ingestion`` from nothing over a generated log."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for name in ("conf", "src"):
            shutil.copytree(ROOT / name, project / name)
        shutil.copy(ROOT / "pyproject.toml", project)
        write_sample_data(project / "data/01_raw/feedback.jsonl", rows, seed=0)
        command = [sys.executable, "-m", "kedro", "run", "--pipelines", "data_ingestion"]
        begin = time.perf_counter()
        with (project / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit((project / "log").read_text())
        return Cost(seconds, usage.ru_utime + usage.ru_stime, _peak_bytes(project))


def _peak_bytes(project: Path) -> float:
    """Of the largest node, as the run logged it: the kernel counts this process with its child."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("rpo_pipeline").experiment_id])
    peaks = [value for name, value in run.data.metrics.items() if name.startswith("memory/")]
    return max(peaks) * 2**20
