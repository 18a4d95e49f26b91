"""Versions in a real MLflow registry on SQLite, and runs."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.records import Champion
from rpo_pipeline.registry import client as registry
from rpo_pipeline.tracking.run import MetricsFollower, flatten
from tests.registries import apply, decision, holders, register, tracked_run


def test_a_registered_version_is_challenger_and_carries_its_documents_and_metrics(
    tracked, client, model_name, checkpoint
):
    version = register(tracked, model_name, checkpoint)
    assert holders(client, model_name) == {"challenger": version}
    folder = mlflow.artifacts.download_artifacts(
        f"models:/{model_name}/{version}/artifacts", tracking_uri=tracked.tracking_uri
    )
    assert json.loads(Path(folder, "normaliser.json").read_text()) == {"kind": "none"}
    model_id = client.get_model_version(model_name, version).source.removeprefix("models:/")
    logged = client.get_logged_model(model_id)
    assert {m.key: m.value for m in logged.metrics} == {"eval/reward_mean": 0.5}
    assert logged.experiment_id == tracked.experiment_id


def test_the_champions_checkpoint_is_fetched_once_and_there_is_none_at_first(
    tracked, model_name, checkpoint, folder, tmp_path
):
    nothing = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert nothing == Champion(None, None)
    version = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, version, decision(), folder)
    champion = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert champion.version == version
    fetched = champion.path
    assert (fetched / "model.safetensors").read_bytes() == (
        checkpoint / "model.safetensors"
    ).read_bytes()
    (fetched / "marker").touch()
    assert registry.fetch_champion(tracked.describe(), model_name, tmp_path) == champion
    assert (fetched / "marker").exists()


def test_the_checkpoint_comes_from_the_server_of_the_run_whatever_the_global_one_is(
    tracked, model_name, checkpoint, folder, tmp_path
):
    version = register(tracked, model_name, checkpoint)
    apply(tracked, model_name, version, decision(), folder)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'another.db'}")  # as in a new process
    champion = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert (champion.path / "model.safetensors").is_file()


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
    run = tracked_run(folder)
    run.finish("FINISHED")
    run.finish("KILLED")
    assert MlflowClient(run.tracking_uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_version_is_known_until_it_is_deleted(tracked, client, model_name, checkpoint):
    made = registry.register_version(
        tracked.describe(), model_name, checkpoint, documents={}, metrics={}, tags={}
    )
    assert registry.has_version(tracked.describe(), model_name, made)
    assert not registry.has_version(tracked.describe(), model_name, replace(made, model_id="m-0"))
    client.delete_model_version(model_name, made.version)
    assert not registry.has_version(tracked.describe(), model_name, made)


def test_a_document_that_a_version_carries_is_read_and_a_missing_version_is_named(
    tracked, model_name, checkpoint
):
    version = register(tracked, model_name, checkpoint, **{"summary.json": {"num_prompts": 3}})
    where = (tracked.describe(), model_name)
    assert registry.fetch_document(*where, version, "summary.json") == {"num_prompts": 3}
    with pytest.raises(RegistryError, match=r"version 99 of .* cannot be downloaded"):
        registry.fetch_document(*where, "99", "summary.json")


def test_a_version_that_a_killed_run_registered_is_taken_up_and_not_made_twice(
    tracked, client, model_name, checkpoint, folder
):
    killed = register(tracked, model_name, checkpoint)
    client.delete_registered_model_alias(model_name, "challenger")  # it did not come so far
    again = register(tracked, model_name, checkpoint)
    assert again == killed
    assert holders(client, model_name) == {"challenger": killed}
    apply(tracked, model_name, again, decision(), folder)
    assert register(tracked, model_name, checkpoint) != killed  # that one had its decision


HALF_MADE = """
import os, signal, sys
from mlflow.store.db import utils
from rpo_pipeline.tracking import run as tracking
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
utils._upgrade_db = kill  # in the middle: tables are there, and their version is not
tracking._make_database(f"sqlite:///{sys.argv[1]}/mlflow.db")
"""


def test_a_kill_while_the_database_is_made_leaves_none_and_the_next_run_makes_it(tmp_path):
    killed = subprocess.run([sys.executable, "-c", HALF_MADE, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    tracked_run(tmp_path).finish("FINISHED")
    assert [path.name for path in tmp_path.glob("*.db")] == ["mlflow.db"]
