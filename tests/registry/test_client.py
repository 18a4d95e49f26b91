"""Versions and aliases in a real MLflow registry on SQLite."""

import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from rpo_pipeline.params import GateParams, PromotionParams, TrackingParams
from rpo_pipeline.registry import client as registry
from rpo_pipeline.registry.tracking import MetricsFollower, TrackedRun, flatten
from tests.conftest import build_small

GATE = GateParams(
    metric="reward_mean", against="champion", direction="above", threshold=0, bound="low"
)
SUMMARY = {"challenger": {}}


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


def register(tracked, model_name, checkpoint):
    return registry.register_version(
        tracked.describe(),
        model_name,
        checkpoint,
        documents={"normaliser": {"kind": "none"}},
        metrics={"eval/reward_mean": 0.5},
    )["version"]


def decision(passed=True, champion=None):
    check = {"metric": "reward_mean", "passed": passed, "reason": "because of the numbers"}
    return {"passed": passed, "champion_version": champion, "checks": [check]}


def apply(tracked, model_name, version, gate, folder, mode="auto"):
    promotion = PromotionParams(model_name=model_name, mode=mode, min_test_prompts=1, gates=[GATE])
    return registry.apply_decision(
        tracked.describe(), version, gate, promotion, lock_file=folder / "lock"
    )


def aliases(client, model_name):
    found = client.get_registered_model(model_name).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_registered_version_is_challenger_and_carries_its_documents_and_metrics(
    tracked, client, model_name, checkpoint
):
    version = register(tracked, model_name, checkpoint)
    assert aliases(client, model_name) == {"challenger": version}
    folder = mlflow.artifacts.download_artifacts(
        f"models:/{model_name}/{version}/artifacts", tracking_uri=tracked.tracking_uri
    )
    assert json.loads(Path(folder, "normaliser.json").read_text()) == {"kind": "none"}
    model_id = client.get_model_version(model_name, version).source.removeprefix("models:/")
    logged = client.get_logged_model(model_id)
    assert {m.key: m.value for m in logged.metrics} == {"eval/reward_mean": 0.5}
    assert logged.experiment_id == tracked.experiment_id


def test_the_first_version_that_passes_becomes_champion_and_the_next_keeps_it_as_previous(
    tracked, client, model_name, checkpoint, folder
):
    first = register(tracked, model_name, checkpoint)
    assert apply(tracked, model_name, first, decision(), folder)["promoted"]
    assert aliases(client, model_name) == {"champion": first}
    second = register(tracked, model_name, checkpoint)
    assert apply(tracked, model_name, second, decision(champion=first), folder)["promoted"]
    assert aliases(client, model_name) == {"champion": second, "previous": first}


def test_a_version_that_fails_stays_challenger_and_is_tagged_with_the_reasons(
    tracked, client, model_name, checkpoint, folder
):
    first = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, first, decision(), folder)
    second = register(tracked, model_name, checkpoint)
    result = apply(tracked, model_name, second, decision(passed=False, champion=first), folder)
    assert not result["promoted"]
    assert aliases(client, model_name) == {"champion": first, "challenger": second}
    tags = client.get_model_version(model_name, second).tags
    assert tags["gate"] == "failed"
    assert "because of the numbers" in tags["gate_checks"]
    assert "because of the numbers" in tags["promotion"]


def test_in_manual_mode_a_passing_version_stays_challenger(
    tracked, client, model_name, checkpoint, folder
):
    version = register(tracked, model_name, checkpoint)
    result = apply(tracked, model_name, version, decision(), folder, mode="manual")
    assert not result["promoted"]
    assert aliases(client, model_name) == {"challenger": version}


def test_a_decision_about_another_champion_than_todays_is_not_applied(
    tracked, client, model_name, checkpoint, folder
):
    first = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, first, decision(), folder)
    second = register(tracked, model_name, checkpoint)
    result = apply(tracked, model_name, second, decision(champion=None), folder)
    assert not result["promoted"]
    assert "evaluate again" in result["reason"]
    assert aliases(client, model_name)["champion"] == first


def test_the_champions_checkpoint_is_fetched_once_and_there_is_none_at_first(
    tracked, model_name, checkpoint, folder, tmp_path
):
    nothing = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert nothing == {"version": None, "path": None}
    version = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, version, decision(), folder)
    champion = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert champion["version"] == version
    assert (tmp_path / version / "model.safetensors").read_bytes() == (
        checkpoint / "model.safetensors"
    ).read_bytes()
    (tmp_path / version / "marker").touch()
    registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert (tmp_path / version / "marker").exists()


def test_the_checkpoint_comes_from_the_server_of_the_run_whatever_the_global_one_is(
    tracked, model_name, checkpoint, folder, tmp_path
):
    version = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, version, decision(), folder)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'another.db'}")  # as in a new process
    champion = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert (Path(champion["path"]) / "model.safetensors").is_file()


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_a_registered_model_answers_prompts_with_parameters(
    tracked, model_name, tmp_path, model_type
):
    build_small(model_type).save(tmp_path / "policy")
    version = register(tracked, model_name.split("[")[0] + model_type, tmp_path / "policy")
    mlflow.set_tracking_uri(tracked.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{model_name.split('[')[0]}{model_type}/{version}")
    greedy = model.predict(["Help!", "Hello, my kettle leaks."], params={"max_new_tokens": 5})
    assert len(greedy) == 2
    assert model.predict(["Help!"], params={"max_new_tokens": 5}) == greedy[:1]
    drawn = {
        model.predict(["Help!"], params={"sampling_temperature": 1.0, "seed": seed})[0]
        for seed in range(4)
    }
    assert len(drawn) > 1


def test_metrics_are_streamed_while_the_file_grows(tracked, client, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "train/stale": 1.0}\n')
    follower = MetricsFollower(tracked, file)
    with file.open("w") as log:
        log.write('{"step": 1, "train/streamed": 0.5}\n{"step": 2, "train/stre')
        log.flush()
        follower._send()
        before = client.get_metric_history(tracked.run_id, "train/streamed")
        log.write('amed": 0.25}\n')
    follower.stop()
    after = client.get_metric_history(tracked.run_id, "train/streamed")
    assert [m.value for m in before] == [0.5]
    assert [(m.step, m.value) for m in after] == [(1, 0.5), (2, 0.25)]
    assert client.get_metric_history(tracked.run_id, "train/stale") == []


def test_nested_parameters_get_dotted_names_and_lists_are_json():
    params = {"rpo": {"tau": 0.5, "estimator": "monte_carlo"}, "sources": [{"path": "a"}]}
    assert dict(flatten(params)) == {
        "rpo.tau": "0.5",
        "rpo.estimator": "monte_carlo",
        "sources": '[{"path": "a"}]',
    }


def test_the_first_status_of_a_run_stays(folder):
    tracking = TrackingParams(tracking_uri="sqlite:///mlflow.db", experiment="test")
    run = TrackedRun(tracking, folder)
    run.finish("FINISHED")
    run.finish("KILLED")
    assert MlflowClient(run.tracking_uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_version_is_known_until_it_is_deleted(tracked, client, model_name, checkpoint):
    made = registry.register_version(
        tracked.describe(), model_name, checkpoint, documents={}, metrics={}
    )
    assert registry.has_version(tracked.describe(), model_name, made)
    assert not registry.has_version(tracked.describe(), model_name, {**made, "model_id": "m-0"})
    client.delete_model_version(model_name, made["version"])
    assert not registry.has_version(tracked.describe(), model_name, made)


def test_applying_a_decision_again_changes_nothing(
    tracked, client, model_name, checkpoint, tmp_path
):
    version = register(tracked, model_name, checkpoint)
    arguments = (tracked, model_name, version, decision(), tmp_path)
    assert apply(*arguments)["promoted"]
    again = apply(*arguments)
    assert (again["promoted"], again["champion_after"]) == (False, version)
    assert client.get_model_version(model_name, version).tags["promotion"].startswith("promoted")
