"""Outboxes that are damaged or answered wrongly hold up nothing, and nothing of them is lost."""

import itertools
import json

import pytest
from mlflow import MlflowClient

from rpo_pipeline.tracking.delivery import Delivery
from rpo_pipeline.tracking.outbox import Outbox
from tests.registries import tracked_run
from tests.tracking.faults import Killed, KilledClient


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def run(folder):
    run = tracked_run(folder)
    run.leave()
    return run


@pytest.fixture
def client(run):
    return MlflowClient(run.tracking_uri)


@pytest.fixture
def settle(client, tmp_path, tmp_path_factory):
    """Settles what lies in a folder of outboxes, as the next run does."""

    def send(client=client):
        own = Outbox(tmp_path_factory.mktemp("another"))
        Delivery(client, own, on_outage="continue").settle_left_behind(tmp_path)

    return send


def leave(folder, *entries):
    """An outbox of a run that is over."""
    outbox = Outbox(folder)
    outbox.open()
    for entry in entries:
        outbox.add(entry)
    outbox.release()
    return folder


def metric(run, name):
    return {"run_id": run.run_id, "call": "batch", "metrics": [(name, 1.0, 1, 0)]}


DAMAGED = [b'{"run_id": \x00\x00\n', b"\0" * 50 + b"\n", b"[1]\n", b"\xff\xfe\n", b'{"call": 1}\n']


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_set_aside_and_the_calls_around_it_arrive(
    run, client, settle, tmp_path, caplog, line
):
    outbox = leave(tmp_path / run.run_id, metric(run, "before"), metric(run, "after"))
    before, after = (outbox / "entries.jsonl").read_bytes().splitlines(keepends=True)
    (outbox / "entries.jsonl").write_bytes(before + line + after)
    settle()
    assert set(client.get_run(run.run_id).data.metrics) == {"before", "after"}
    assert (tmp_path / f"{run.run_id}.broken/entries.jsonl").read_bytes() == line
    assert not outbox.exists()
    assert "1 damaged calls" in caplog.text
    caplog.clear()
    settle()
    assert caplog.text == ""  # it was said once


def test_the_file_of_a_damaged_line_is_kept_with_it(run, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("numbers")
    outboxes = tmp_path / "outboxes"
    outbox = leave(outboxes / run.run_id, {**metric(run, "m"), "file": str(report)})
    (outbox / "entries.jsonl").write_bytes(b'{"run_id"\n')
    Outbox.left_behind(outbox).release()
    (kept,) = outboxes.glob("*.broken/*/report.html")
    assert kept.read_text() == "numbers"


def test_what_the_server_refuses_is_set_aside_with_why_and_what_follows_arrives(
    run, client, settle, tmp_path, tmp_path_factory, caplog
):
    gone = client.create_run(run.experiment_id).info.run_id
    client.delete_run(gone)
    report = tmp_path_factory.mktemp("results") / "report.html"
    report.write_text("numbers")
    odd = {"run_id": run.run_id, "call": "sing"}
    short = {"run_id": run.run_id, "call": "batch", "metrics": [("m",)]}
    of_gone = {"run_id": gone, "call": "batch", "tags": [("a", "b")], "file": str(report)}
    leave(tmp_path / gone, of_gone)
    leave(tmp_path / run.run_id, odd, short, metric(run, "after"))
    settle()
    assert client.get_run(run.run_id).data.metrics == {"after": 1.0}
    reasons = [
        [
            json.loads(line)["refused"]
            for line in (folder / "entries.jsonl").read_text().splitlines()
        ]
        for folder in (tmp_path / f"{gone}.broken", tmp_path / f"{run.run_id}.broken")
    ]
    assert "must be in the 'active' state" in reasons[0][0]
    assert "there is no call 'sing'" in reasons[1][0]
    assert len(reasons[1]) == 2
    assert len(list(tmp_path.glob("*.broken/*/report.html"))) == 1
    assert "2 calls of" in caplog.text


def test_what_is_no_outbox_is_set_aside_and_loses_nothing(settle, tmp_path, caplog):
    (tmp_path / "stray").write_text("x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("y")
    (tmp_path / ".gitkeep").touch()
    settle()
    assert (tmp_path / "stray.broken").read_text() == "x"
    assert (tmp_path / "notes.broken" / "mine.txt").read_text() == "y"
    assert (tmp_path / ".gitkeep").exists()
    assert "stray is no outbox" in caplog.text


def test_the_outbox_of_a_run_that_nobody_knows_is_closed(settle, tmp_path):
    leave(tmp_path / "nobody")  # it is removed as it is empty
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "lock").touch()
    settle()
    assert not (tmp_path / "nobody").exists()


def test_a_delivery_that_is_killed_at_any_call_delivers_no_nested_run_twice(
    run, client, settle, tmp_path
):
    for calls in itertools.count():
        parent = client.create_run(run.experiment_id).info.run_id
        cells = [
            {
                "run_id": parent,
                "call": "nested",
                "name": f"cell {number}",
                "params": [("seed", str(number))],
                "metrics": [("reward", 1.0, 1, 0)],
            }
            for number in range(2)
        ]
        leave(tmp_path / parent, *cells)
        try:
            settle(KilledClient(run.tracking_uri, calls=calls))
        except Killed:
            settle()
            at_work = True
        else:
            at_work = False
        query = f"tags.mlflow.parentRunId = '{parent}'"
        nested = client.search_runs([run.experiment_id], query)
        assert sorted(one.info.run_name for one in nested) == ["cell 0", "cell 1"]
        assert {one.info.status for one in nested} == {"FINISHED"}
        assert all(one.data.metrics == {"reward": 1.0} for one in nested)
        if not at_work:
            break
    assert calls > 8


def test_an_artifact_store_that_takes_nothing_does_not_stop_the_run(client, tmp_path, caplog):
    nowhere = client.create_experiment(tmp_path.name, artifact_location="file:///dev/null/store")
    report = tmp_path / "report.html"
    report.write_text("numbers")
    own = Outbox(tmp_path / "outboxes" / "run")
    own.open()
    calls = Delivery(client, own, on_outage="continue")
    run_id = client.create_run(nowhere).info.run_id
    calls.deliver({"run_id": run_id, "call": "artifact", "file": str(report)})
    calls.close()
    assert len(own) == 1
    assert "does not take what is logged" in caplog.text
