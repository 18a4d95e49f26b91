"""A real MLflow registry on SQLite, and a tracking server that can be stopped and started again."""

import socket
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from werkzeug.serving import make_server

from rpo_pipeline.params import GateParams, PromotionParams, TrackingParams
from rpo_pipeline.records import Decision
from rpo_pipeline.registry import aliases
from rpo_pipeline.registry import client as registry
from rpo_pipeline.registry.provenance import serving_documents
from rpo_pipeline.tracking.run import TrackedRun
from tests.conftest import build_small

GATE = GateParams(
    metric="reward_mean", against="champion", direction="above", threshold=0, bound="low"
)


SERVED = {"max_prompt_tokens": 24, "max_response_tokens": 12, "dtype": "float32"}


def tracked_run(
    folder: Path, uri: str = "sqlite:///mlflow.db", run_id: str | None = None, **changes
) -> TrackedRun:
    """A run in an experiment of its own, its outbox in the folder."""
    settings = {"on_outage": "continue", "registry_wait_seconds": 1} | changes
    tracking = TrackingParams(tracking_uri=uri, experiment="test", **settings)
    return TrackedRun(tracking, folder, folder / "outboxes", run_id=run_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def tracked(folder):
    return tracked_run(folder)


@pytest.fixture
def client(tracked):
    return MlflowClient(tracked.tracking_uri)


@pytest.fixture(scope="module")
def checkpoint(folder):
    build_small("llama").save(folder / "policy")
    return folder / "policy"


@pytest.fixture
def model_name(request):
    return request.node.name


@pytest.fixture(scope="module")
def logged(tracked, checkpoint):
    """Id of a logged model that any number of versions can share."""
    name = "shared"
    register(tracked, name, checkpoint)
    source = MlflowClient(tracked.tracking_uri).get_model_version(name, "1").source
    return source.removeprefix("models:/")


@pytest.fixture
def challenge(client, model_name, logged):
    """Makes a new challenger, and gives its version."""

    def make():
        if not client.search_registered_models(f"name = '{model_name}'"):
            client.create_registered_model(model_name)
        made = client.create_model_version(model_name, f"models:/{logged}", model_id=logged)
        client.set_registered_model_alias(model_name, "challenger", made.version)
        return str(made.version)

    return make


def register(tracked, model_name, checkpoint, **documents):
    return registry.register_version(
        tracked.describe(),
        model_name,
        checkpoint,
        documents={
            "normaliser.json": {"kind": "none"},
            **serving_documents(SERVED),
            **documents,
        },
        metrics={"eval/reward_mean": 0.5},
        tags={"base_licence": "apache-2.0"},
    ).version


def decision(passed=True, champion=None, look=1):
    check = {"metric": "reward_mean", "passed": passed, "reason": "because of the numbers"}
    return Decision(passed, champion_version=champion, look=look, checks=(check,))


def promotion(model_name, **changes):
    settings = {
        "model_name": model_name,
        "mode": "auto",
        "min_test_prompts": 1,
        "confidence": 0.95,
        "require_ratings": True,
        "require_agreement": True,
        "required_artifacts": ["checkpoint", "normaliser.json"],
        "gates": [GATE],
    }
    return PromotionParams(**{**settings, **changes})


def apply(tracked, model_name, challenger, gate, folder, **changes):
    return aliases.apply_decision(
        tracked.describe(), challenger, gate, promotion(model_name, **changes), folder
    )


def holders(client, model_name):
    """Version of each alias."""
    found = client.get_registered_model(model_name).aliases
    return {alias: str(version) for alias, version in found.items()}


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
        # A server in this process makes its registry that of the whole process.
        patch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
        patch.setenv("MLFLOW_REGISTRY_URI", "")
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder}/server.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        # As `mlflow server` does before it listens; the app would in its first answer.
        MlflowClient(f"sqlite:///{folder}/server.db").search_experiments(max_results=1)
        server.start()
        yield server
        server.stop()
