"""The tasks of a DAG as commands: several runs of Kedro, one run of MLflow."""

import subprocess
import sys

import pytest
from mlflow import MlflowClient

from rpo_pipeline.data.sample_data import write_sample_data
from rpo_pipeline.registry.tracking import JOINED_RUN
from tests.e2e.conftest import kedro


@pytest.fixture
def command(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(project / "src"))

    def command(*arguments: str) -> str:
        line = [sys.executable, "-m", "rpo_pipeline", *arguments, "--env", "smoke"]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    return command


def test_a_task_fails_its_retry_goes_on_and_the_last_one_closes_the_run(
    project, command, monkeypatch
):
    run_id = command("open-run").splitlines()[-1]
    monkeypatch.setenv(JOINED_RUN, run_id)
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")

    def ingest() -> tuple[int, str]:
        completed = kedro(project, "run", "--env", "smoke", "--pipelines", "data_ingestion")
        return completed.returncode, client.get_run(run_id).info.status

    assert ingest() == (1, "FAILED")  # there is no log yet
    write_sample_data(project / "data/01_raw/feedback.jsonl", 120, seed=0)
    assert ingest() == (0, "RUNNING")
    command("close-run", run_id)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "refresh")
    assert "time/read_sources" in run.data.metrics
    assert "rpo.tau" in run.data.params
    assert len(client.search_runs([run.info.experiment_id])) == 1
