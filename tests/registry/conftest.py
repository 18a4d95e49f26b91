"""A real MLflow registry on SQLite."""

import pytest
from mlflow import MlflowClient

from rpo_pipeline.params import GateParams, PromotionParams, TrackingParams
from rpo_pipeline.registry import aliases
from rpo_pipeline.registry import client as registry
from rpo_pipeline.registry.tracking import TrackedRun
from tests.conftest import build_small

GATE = GateParams(
    metric="reward_mean", against="champion", direction="above", threshold=0, bound="low"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def tracked(folder):
    tracking = TrackingParams(tracking_uri="sqlite:///mlflow.db", experiment="test")
    return TrackedRun(tracking, folder)


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
        documents={"normaliser.json": {"kind": "none"}, **documents},
        metrics={"eval/reward_mean": 0.5},
        tags={"base_licence": "apache-2.0"},
    )["version"]


def decision(passed=True, champion=None, look=1):
    check = {"metric": "reward_mean", "passed": passed, "reason": "because of the numbers"}
    return {"passed": passed, "champion_version": champion, "look": look, "checks": [check]}


def promotion(model_name, **changes):
    settings = {
        "model_name": model_name,
        "mode": "auto",
        "min_test_prompts": 1,
        "confidence": 0.95,
        "required_artifacts": ["checkpoint", "normaliser.json"],
        "gates": [GATE],
    }
    return PromotionParams(**{**settings, **changes})


def apply(tracked, model_name, challenger, gate, folder, **changes):
    return aliases.apply_decision(
        tracked.describe(), challenger, gate, promotion(model_name, **changes), folder / "lock"
    )


def holders(client, model_name):
    """Version of each alias."""
    found = client.get_registered_model(model_name).aliases
    return {alias: str(version) for alias, version in found.items()}
