"""Runs in a folder of their own, and a tracking server that can be stopped and started again."""

import socket
import threading
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from rpo_pipeline.params import TrackingParams
from rpo_pipeline.registry.tracking import TrackedRun


def tracked_run(folder: Path, uri: str = "sqlite:///mlflow.db", **changes) -> TrackedRun:
    """A run in an experiment of its own, its outbox in the folder."""
    settings = {"on_outage": "continue", "registry_wait_seconds": 1} | changes
    tracking = TrackingParams(tracking_uri=uri, experiment="test", **settings)
    return TrackedRun(tracking, folder, folder / "outboxes")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Server:
    """MLflow's own server, always at the same address; a thread, because it starts in no time."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from mlflow.server import app  # noqa: PLC0415 (it reads the environment)

        self._server = make_server("127.0.0.1", self.port, app, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder}/server.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        server.start()
        yield server
        server.stop()
