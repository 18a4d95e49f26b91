"""A real tracking server that goes away, and comes back."""

import json
import subprocess
import sys
import threading
import time

import pytest
from mlflow import MlflowClient

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.records import RunAddress
from rpo_pipeline.registry import client as registry
from rpo_pipeline.tracking import delivery
from rpo_pipeline.tracking.outbox import Outbox
from rpo_pipeline.tracking.run import MetricsFollower
from tests.conftest import ROOT
from tests.registries import free_port, tracked_run


@pytest.fixture(autouse=True)
def try_every_time(monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(delivery, "RETRY_FACTOR", 0)


def call(number):
    return {"run_id": "r", "call": "batch", "number": number}


def never(_):
    return False


def log_everything(run, file):
    """Every kind of call."""
    run.log_params({"rpo": {"tau": 0.5}})
    run.set_tags({"kedro.env": "smoke"})
    run.log_steps([{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 0.25}])
    run.log_dataset("feedback", file, "training")
    run.log_artifact(file)
    run.log_nested("rpo seed 0", {"seed": 0}, {"eval/reward_mean": 1.5})


def assert_everything_is_there(uri, run_id):
    client = MlflowClient(uri)
    found = client.get_run(run_id)
    assert found.data.params == {"rpo.tau": "0.5"}
    assert found.data.tags["kedro.env"] == "smoke"
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert [i.dataset.name for i in found.inputs.dataset_inputs] == ["feedback"]
    assert [one.path for one in client.list_artifacts(run_id)] == ["feedback.json"]
    query = f"tags.mlflow.parentRunId = '{run_id}'"
    (nested,) = client.search_runs([found.info.experiment_id], query)
    assert nested.data.metrics == {"eval/reward_mean": 1.5}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "feedback.json"
    path.write_text("{}")
    return path


def test_a_server_that_is_not_there_is_named_at_once_and_its_password_is_not(tmp_path):
    uri = f"http://somebody:hunter2@127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(RegistryError, match="does not answer") as error:
        tracked_run(tmp_path, uri)
    assert time.monotonic() - started < 5
    assert "somebody:***@127.0.0.1" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_what_is_logged_while_the_server_is_away_arrives_once_it_is_back(server, tmp_path, file):
    run = tracked_run(tmp_path, server.uri)
    server.stop()
    log_everything(run, file)
    file.unlink()  # results are replaced; what was logged is what there was
    server.start()
    run.finish("FINISHED")
    assert_everything_is_there(server.uri, run.run_id)
    assert not (tmp_path / "outboxes" / run.run_id).exists()


def test_what_a_run_could_not_send_waits_and_the_next_run_sends_it(server, tmp_path, file, caplog):
    run = tracked_run(tmp_path, server.uri)
    strict = tracked_run(tmp_path, server.uri, on_outage="fail")
    server.stop()
    with pytest.raises(RegistryError, match="on_outage is `fail`"):
        strict.log_metrics({"eval/reward_mean": 1.0})
    log_everything(run, file)
    run.finish("FINISHED")
    assert "7 calls could not be sent" in caplog.text
    assert str(tmp_path / "outboxes" / run.run_id) in caplog.text
    server.start()
    tracked_run(tmp_path, server.uri).finish("FINISHED")
    assert_everything_is_there(server.uri, run.run_id)
    # The other one did not get so far as to say that it failed; its end will close it.
    assert [one.name for one in (tmp_path / "outboxes").iterdir()] == [strict.run_id]


def test_a_call_that_is_refused_is_no_outage(server, tmp_path):
    run = tracked_run(tmp_path, server.uri)
    run.log_params({"tau": 1})
    with pytest.raises(Exception, match="Changing param values is not allowed"):
        run.log_params({"tau": 2})


def test_a_registry_that_stays_away_is_named_with_how_to_go_on(tmp_path):
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match="without training again"):
        registry.fetch_champion(RunAddress(uri), "policy", tmp_path)


def test_the_outbox_of_a_run_that_is_still_at_it_is_left_alone(tmp_path):
    outbox = Outbox(tmp_path / "run")
    outbox.open()
    outbox.add(call(1))
    assert Outbox.left_behind(tmp_path / "run") is None
    outbox.release()
    assert len(Outbox.left_behind(tmp_path / "run")) == 1


def test_calls_are_sent_in_order_and_what_follows_a_failure_stays(tmp_path):
    outbox, sent = Outbox(tmp_path / "run"), []
    outbox.open()
    for number in range(4):
        outbox.add(call(number))

    def deliver(entry):
        if entry["number"] == 2:
            raise ConnectionError
        sent.append(entry["number"])

    with pytest.raises(ConnectionError):
        outbox.send(deliver, refuses=never)
    assert sent == [0, 1]
    lines = (tmp_path / "run" / "entries.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [2, 3]


def test_what_a_stage_left_is_sent_by_the_next_stage_before_its_own(tmp_path):
    first, second, sent = Outbox(tmp_path / "run"), Outbox(tmp_path / "run"), []
    for number, outbox in enumerate((first, second)):
        outbox.open()
        outbox.add(call(number))
        if outbox is first:
            outbox.release()
    second.send(lambda entry: sent.append(entry["number"]), refuses=never)
    second.release()
    assert sent == [0, 1]
    assert not (tmp_path / "run").exists()


def test_a_line_that_a_killed_process_did_not_finish_spoils_none_that_follow(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "entries.jsonl").write_text(json.dumps(call(0)) + '\n{"numb')
    outbox = Outbox(tmp_path / "run")
    outbox.open()
    outbox.add(call(1))
    outbox.release()
    assert len(Outbox.left_behind(tmp_path / "run")) == 2


def test_the_thread_that_follows_metrics_adds_to_the_same_outbox(tmp_path):
    outbox = Outbox(tmp_path / "run")
    outbox.open()
    follower = threading.Thread(target=outbox.add, args=[call(0)], daemon=True)
    follower.start()
    follower.join(timeout=5)
    outbox.add(call(1))
    assert len(outbox) == 2


def test_a_run_that_was_killed_is_closed_by_the_next_one(tmp_path):
    code = (
        "import os, signal; from pathlib import Path;"
        "from tests.registries import tracked_run;"
        f"print(tracked_run(Path({str(tmp_path)!r})).run_id, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    run_id = killed.stdout.strip()
    at_work = tracked_run(tmp_path)
    client = MlflowClient(at_work.tracking_uri)
    statuses = {one: client.get_run(one).info.status for one in (run_id, at_work.run_id)}
    assert statuses == {run_id: "KILLED", at_work.run_id: "RUNNING"}
    tracked_run(tmp_path).finish("FINISHED")
    assert client.get_run(at_work.run_id).info.status == "RUNNING"


def test_an_outage_that_the_follower_of_metrics_meets_is_told_when_the_node_ends(server, tmp_path):
    run = tracked_run(tmp_path, server.uri, on_outage="fail")
    file = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(run, file)
    server.stop()
    file.write_text('{"step": 1, "train/loss": 0.5}\n')
    follower._thread.join(timeout=30)
    with pytest.raises(RegistryError, match="on_outage is `fail`"):
        follower.stop()
    server.start()
