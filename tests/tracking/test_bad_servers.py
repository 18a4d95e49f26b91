"""Servers that answer, and are no MLflow server that works."""

import time

import pytest
from mlflow import MlflowClient

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.records import RunAddress
from rpo_pipeline.registry import client as registry
from rpo_pipeline.tracking import delivery, outage
from rpo_pipeline.tracking.delivery import Delivery
from rpo_pipeline.tracking.outage import find_fault
from rpo_pipeline.tracking.outbox import Outbox
from tests.registries import free_port, tracked_run
from tests.tracking.faults import empty, failing, logging_in, missing, redirecting, serving, slow

METRIC = {"run_id": "r", "call": "batch", "metrics": [("loss", 1.0, 1, 0)]}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (failing, "HTTP 500"),
        (logging_in, "text/html, as a login page does"),
        (redirecting, r"redirects to http://127\.0\.0\.1/login, and"),
        (empty, "names no version of MLflow"),
        (missing, "HTTP 404"),
        (slow, "nobody answers there within 1 s"),
    ],
)
def test_what_is_wrong_with_a_server_is_said_at_the_start_within_seconds(
    tmp_path, monkeypatch, answers, words
):
    monkeypatch.setattr(outage, "ANSWER_SECONDS", 1)
    with serving(answers) as uri:
        started = time.monotonic()
        with pytest.raises(RegistryError, match=words) as error:
            tracked_run(tmp_path, uri)
    assert time.monotonic() - started < 8
    assert "MLFLOW_TRACKING_URI" in str(error.value)
    assert "hunter22" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_fails_all_but_its_health_page_costs_no_call_more_than_a_moment(tmp_path):
    outbox = Outbox(tmp_path / "r")
    outbox.open()
    with serving(failing) as uri:
        calls = Delivery(MlflowClient(uri), outbox, on_outage="continue")
        started = time.monotonic()
        for _ in range(5):
            calls.deliver(METRIC)
    assert time.monotonic() - started < 5
    assert len(outbox) == 5


def test_a_server_that_fails_slowly_is_asked_seldom(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_SECONDS", 0.0)
    outbox, asked = Outbox(tmp_path / "r"), []
    outbox.open()

    def tardy(path):
        asked.append(path)
        time.sleep(0.2)
        return failing(path)

    with serving(tardy) as uri:
        calls = Delivery(MlflowClient(uri), outbox, on_outage="continue")
        for _ in range(50):
            calls.deliver(METRIC)
    assert len(asked) == 1  # the next time is 20 times as long as this one took


def test_a_registry_that_answers_with_a_login_page_says_so_once_it_was_waited_for(tmp_path):
    with serving(logging_in) as uri, pytest.raises(RegistryError, match="login page"):
        registry.fetch_champion(RunAddress(uri), "policy", tmp_path)


def test_a_server_that_works_has_no_fault_and_neither_has_one_that_wants_an_account(server):
    assert find_fault(server.uri) is None
    with serving(lambda _: (401, "text/html", b"who are you?")) as uri:
        assert find_fault(uri) is None


@pytest.mark.parametrize("dialect", ["postgresql", "mysql+pymysql"])
def test_a_database_server_that_is_away_is_noticed_at_once(dialect):
    started = time.monotonic()
    fault = find_fault(f"{dialect}://somebody:hunter22@127.0.0.1:{free_port()}/mlflow")
    assert fault.startswith("no database server answers there")
    assert time.monotonic() - started < 5


def test_a_file_that_can_be_no_database_is_named_and_an_empty_or_new_one_is_fine(tmp_path):
    (tmp_path / "notes.db").write_text("these are notes " * 10)
    (tmp_path / "empty.db").touch()
    faults = [find_fault(f"sqlite:///{tmp_path}/{name}") for name in ("", "notes.db")]
    assert faults == ["it is a folder", "it is no SQLite database"]
    assert find_fault(f"sqlite:///{tmp_path}/empty.db") is None
    assert find_fault(f"sqlite:///{tmp_path}/new/folder/of.db") is None
