"""A tracking server that dies in the middle of a run, and secrets that nobody sees."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.tracking.outage import find_fault
from tests.e2e.conftest import override
from tests.registries import free_port

PASSWORD, KEY, CREDENTIAL = "correct-horse-battery", "sk-judge-0123456789", "bucket-secret-987"
SECONDS = 240
LENIENT = {
    "metric": "reward_mean",
    "against": "champion",
    "direction": "above",
    "threshold": -9.0,
    "bound": "low",
}

pytestmark = pytest.mark.integration


class Server:
    """``mlflow server`` in a folder, always at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://somebody:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
        deadline = time.monotonic() + SECONDS
        while find_fault(self.uri):
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def run(project, server, *, kill_at=None):
    """Exit code and all that was printed; the server is killed as a node starts."""
    inherited = {k: v for k, v in os.environ.items() if k != "MLFLOW_HTTP_REQUEST_MAX_RETRIES"}
    secret = {"MLFLOW_TRACKING_URI": server.uri, "JUDGE_API_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-m", "kedro", "run", "--env", "smoke"],
        cwd=project,
        env={**inherited, **secret, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if kill_at and f"Running node: {kill_at}:" in line:
            server.kill()
    return process.wait(), "".join(lines)


def test_a_server_that_dies_costs_no_training_and_no_number_and_no_secret_is_seen(project, server):
    write_sample_data(project / "data/01_raw/feedback.jsonl", 600, seed=0)
    override(project, "promotion", {"gates": [LENIENT]})
    (project / "conf/smoke/mlflow.yml").write_text("registry_wait_seconds: 1\n")
    credentials = project / "conf/smoke/credentials.yml"
    credentials.write_text(f"bucket: {{key: {CREDENTIAL}}}\n")

    code, first = run(project, server, kill_at="summarise")
    assert code == 1, first
    assert "without training again" in first
    assert "Traceback" not in first
    server.start()
    code, second = run(project, server)
    assert code == 0, second
    assert "Running node: train_policy" not in second
    assert "sent what MLflow run" in second

    client = MlflowClient(server.uri)
    assert client.get_model_version_by_alias("rpo-policy-smoke", "champion").version in (1, "1")
    experiment = client.get_experiment_by_name("rpo_pipeline").experiment_id
    by_status = {found.info.status: found for found in client.search_runs([experiment])}
    assert set(by_status) == {"FAILED", "FINISHED"}
    assert {"time/summarise", "memory/train_policy"} <= set(by_status["FAILED"].data.metrics)
    assert_no_secret([first, second], [project, server.folder], besides=credentials)


def assert_no_secret(texts, folders, *, besides):
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    contents = {path: path.read_bytes() for path in files if path != besides}
    contents |= {f"output {n}": text.encode() for n, text in enumerate(texts)}
    for secret in (PASSWORD, KEY, CREDENTIAL):
        holding = [str(name) for name, content in contents.items() if secret.encode() in content]
        assert holding == []
