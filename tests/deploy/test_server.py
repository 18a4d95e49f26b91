"""The parts of the Compose file as processes, with their own commands, and a run against them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.records import RunAddress
from rpo_pipeline.registry.client import fetch_champion
from tests.conftest import ROOT, make_project
from tests.deploy.test_compose import REQUIRED, compose
from tests.e2e.conftest import kedro, override

pytestmark = pytest.mark.integration

MODEL = "rpo-policy-smoke"
SECONDS = 120
SECRETS = {"POSTGRES_PASSWORD": "p@ss:w/rd%", "S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "s3"}
SECRETS |= {"MLFLOW_PASSWORD": "at least twelve", "MLFLOW_SECRET_KEY": "signs cookies"}
SECRETS |= {"REFRESH_PASSWORD": "also at least twelve"}


def environment(service: str, **changes: str) -> dict[str, str]:
    """Variables of a service, with the secrets of this test."""
    variables = compose()["services"][service]["environment"]
    filled = {k: REQUIRED.sub(lambda found: SECRETS[found[1]], v) for k, v in variables.items()}
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | filled | changes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def process(command: list, port: int, **settings) -> Iterator[None]:
    """A server, from the moment it listens to the end of the block."""
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, **settings
        )
        try:
            for _ in range(SECONDS):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (log.seek(0), log.read())[1]
                time.sleep(1)
            yield
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(60)


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """PostgreSQL as Debian packs it; it refuses to run as root."""
    binaries = shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    bin_folder, port = Path(binaries).resolve().parent, free_port()
    user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    password = environment("postgres")["POSTGRES_PASSWORD"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "password").write_text(password)
        if user:
            shutil.chown(folder, **user)
            Path(folder).chmod(0o700)
            shutil.chown(f"{folder}/password", **user)
        make = [
            bin_folder / "initdb",
            "-D",
            f"{folder}/data",
            "-U",
            "mlflow",
            "-A",
            "scram-sha-256",
        ]
        subprocess.run([*make, "--pwfile", f"{folder}/password"], cwd=folder, check=True, **user)
        run = [bin_folder / "postgres", "-D", f"{folder}/data", "-p", str(port), "-k", folder]
        with process(run, port, cwd=folder, **user):
            database = [bin_folder / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
            subprocess.run([*database, "mlflow"], env={"PGPASSWORD": password}, check=True)
            yield port


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server with the bucket that the service `bucket` makes; it can be started again."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process([sys.executable, "-m", "moto.server", "-p", str(port)], port):
        command = compose()["services"]["bucket"]["command"]
        for _ in range(2):
            subprocess.run(
                [sys.executable, *command[1:]],
                env=environment("bucket", AWS_ENDPOINT_URL=url),
                check=True,
            )
        yield url


@pytest.fixture(scope="module")
def server(postgres, s3, tmp_path_factory) -> Iterator[str]:
    port = free_port()
    command = compose()["services"]["mlflow"]["command"]
    assert (command[0], "--port=5000" in command) == ("mlflow", True)
    command = [sys.executable, "-m", *command]
    command[command.index("--port=5000")] = f"--port={port}"
    variables = environment(
        "mlflow",
        AWS_ENDPOINT_URL=s3,
        PGHOST="127.0.0.1",
        PGPORT=str(postgres),
        MLFLOW_AUTH_CONFIG_PATH=str(ROOT / "deploy/mlflow/basic_auth.ini"),
    )
    with process(command, port, env=variables, cwd=tmp_path_factory.mktemp("server")):
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def account(server) -> Iterator[str]:
    """The server, with the refresh job's account, which is made twice, in the environment."""
    program, *arguments = compose()["services"]["account"]["command"][1:]
    make = [sys.executable, ROOT / "deploy/mlflow" / Path(program).name, *arguments]
    for _ in range(2):
        variables = environment("account", MLFLOW_TRACKING_URI=server)
        subprocess.run(make, env=variables, check=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("USERNAME", "PASSWORD"):
            patch.setenv(
                f"MLFLOW_TRACKING_{name}", environment("refresh")[f"MLFLOW_TRACKING_{name}"]
            )
        yield server


@pytest.fixture(scope="module")
def finished(account, tmp_path_factory):
    """A project whose run was promoted."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
    write_sample_data(folder / "data/01_raw/feedback.jsonl", None, seed=0)
    gate = {"metric": "reward_mean", "against": "champion", "bound": "low"}
    override(folder, "promotion", {"gates": [{**gate, "direction": "above", "threshold": -9.0}]})
    return folder, refresh(folder, account)


def refresh(folder: Path, server: str) -> subprocess.CompletedProcess:
    (folder / "conf/smoke/mlflow.yml").write_text(
        f"tracking_uri: {server}\nexperiment: rpo_pipeline\n"
    )
    return kedro(folder, "run", "--env", "smoke")


def test_a_run_is_promoted_on_the_server_and_says_no_password(finished, account):
    _, completed = finished
    assert completed.returncode == 0, completed.stderr
    version = MlflowClient(account).get_model_version_by_alias(MODEL, "champion")
    run = MlflowClient(account).get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert SECRETS["REFRESH_PASSWORD"] not in completed.stderr + completed.stdout


def test_the_champion_comes_back_from_the_store_byte_for_byte(finished, account, tmp_path):
    folder, _ = finished
    run = RunAddress(account)
    champion = fetch_champion(run, MODEL, tmp_path)
    weights = "model.safetensors"
    assert (champion.path / weights).read_bytes() == (
        folder / "data/smoke/06_models/policy" / weights
    ).read_bytes()


@pytest.mark.usefixtures("finished")
def test_the_weights_are_in_the_bucket(s3):
    list_objects = (
        "import boto3; print(*(o['Key'] for o in boto3.client('s3').list_objects_v2("
        "Bucket='mlflow', MaxKeys=1000)['Contents']))"
    )
    keys = subprocess.run(
        [sys.executable, "-c", list_objects],
        env=environment("bucket", AWS_ENDPOINT_URL=s3),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "model.safetensors" in keys.stdout


def test_a_wrong_password_ends_the_run_before_any_work(account, project, monkeypatch):
    write_sample_data(project / "data/01_raw/feedback.jsonl", 120, seed=0)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not this one")
    completed = refresh(project, account)
    assert completed.returncode == 1
    assert "refuses this account" in completed.stderr
    assert "MLFLOW_TRACKING_PASSWORD" in completed.stderr
    assert "Traceback" not in completed.stderr
    written = [path for path in (project / "data/smoke").rglob("*") if path.is_file()]
    assert {path.parent.name for path in written} <= {"refresh", "08_reporting"}  # lock, outcome


@pytest.mark.parametrize(("host", "status"), [("mlflow:5000", 401), ("elsewhere.example", 403)])
def test_the_server_answers_to_its_name_in_the_network_and_asks_for_an_account(
    server, host, status
):
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{server}/api/2.0/mlflow/experiments/search", headers={"Host": host}))
    assert refused.value.code == status
