"""The tasks of a DAG as commands: several runs of Kedro, one run of MLflow."""

import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.operations.lock import only_run
from rpo_pipeline.tracking.opening import JOINED_RUN
from tests.e2e.conftest import kedro, override


@pytest.fixture
def command(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(project / "src"))

    def command(*arguments: str, code: int = 0) -> str:
        line = [sys.executable, "-m", "rpo_pipeline", *arguments, "--env", "smoke"]
        completed = subprocess.run(line, capture_output=True, text=True, check=False)
        assert completed.returncode == code, completed.stderr
        return completed.stdout

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


def test_a_dag_with_nothing_to_do_is_skipped_and_one_that_failed_is_told(project, command):
    policy = {"when": "needed", "min_new_rows": 50, "notifications": {"events": ["failed"]}}
    override(project, "refresh", policy)
    write_sample_data(project / "data/01_raw/feedback.jsonl", 120, seed=0)
    run_id = command("open-run", "--refresh").splitlines()[-1]
    command("close-run", run_id, "--refresh", "--failed")
    assert (
        MlflowClient(f"sqlite:///{project / 'mlflow.db'}").get_run(run_id).info.status == "FAILED"
    )
    reporting = project / "data/smoke/08_reporting"
    told = json.loads((reporting / "refresh/notifications.jsonl").read_text())
    assert told["text"] == f"the refresh failed: a stage of MLflow run {run_id} failed"
    with only_run(reporting / "refresh/run.lock"):
        command("open-run", "--refresh", code=99)
