"""A refresh around a run, with a real catalog, a real log and a real registry."""

import json
import logging
from datetime import UTC, datetime

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from mlflow import MlflowClient

from rpo_pipeline.errors import ConfigError, TrainingError
from rpo_pipeline.operations.lock import BusyError, only_run
from rpo_pipeline.operations.refresh import Refresh

POLICY = {
    "when": "needed",
    "min_new_rows": 3,
    "min_new_ratings": None,
    "max_drift": None,
    "max_age_days": None,
    "notifications": {"events": ["promoted", "failed", "nothing_to_do", "alarm"]},
}
RESULT = {"version": "2", "promoted": True, "reason": "promoted over 1"}


def write_log(folder, *, num_rows, **ratings):
    """Rows, and ten prompts with ratings of each version around a mean."""
    rows = [{"prompt": f"q{i}", "response": "a"} for i in range(num_rows)]
    for version, mean in ratings.items():
        rows += [
            {"prompt": f"q{i}", "response": version, "model_version": version[1:], "reward": reward}
            for i in range(10)
            for reward in (mean, mean + 0.02 * i - 0.09)
        ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data/01_raw/feedback.jsonl").write_text(text)


@pytest.fixture
def open_project(project):
    """A refresh of the project in ``conf/smoke``, under a policy, and its catalog."""

    def open_project(**policy):
        block = {"refresh": POLICY | policy}
        (project / "conf/smoke/parameters_refresh.yml").write_text(yaml.safe_dump(block))
        sources = [{"path": "data/01_raw/feedback.jsonl", "format": "flat"}]
        ingestion = yaml.safe_dump({"ingestion": {"sources": sources}})
        (project / "conf/smoke/parameters_ingestion.yml").write_text(ingestion)
        bootstrap_project(project)
        context = KedroSession.create(project, env="smoke").load_context()
        return Refresh(context), context.catalog

    write_log(project, num_rows=5)
    return open_project


def work(catalog, result=RESULT):
    """What a run leaves behind that a refresh asks for."""

    def run():
        catalog.save("consumed", {"parts": catalog.load("source_parts")})
        catalog.save("promotion_result", result)

    return run


def must_not_run():
    raise AssertionError("there is nothing to do")


def told(catalog):
    file = catalog.load("refresh_workspace") / "notifications.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def settled(open_project):
    """Opens the project as it is after a run that has used up the log."""

    def settled(**policy):
        refresh, catalog = open_project(**policy)
        if catalog.load("refresh_outcome") is None:
            outcome = {"at": datetime.now(UTC).isoformat(), "event": "promoted", "reason": ""}
            catalog.save("refresh_outcome", outcome)
            catalog.save("consumed", {"parts": [part(5)]})
        return refresh, catalog

    return settled


def part(num_rows):
    return {"path": "data/01_raw/feedback.jsonl", "rows": num_rows, "rated": 0}


def test_the_first_run_has_work_and_the_next_has_not(open_project, caplog):
    caplog.set_level(logging.INFO)
    refresh, catalog = open_project()
    catalog.save("source_parts", [part(5)])
    refresh.run(work(catalog))
    assert "there is work: no run has finished here yet" in caplog.text
    refresh.run(must_not_run)
    assert "nothing to do: 0 new rows (refresh.min_new_rows: 3)" in caplog.text
    decision = catalog.load("refresh_decision")
    assert decision["work"] is False
    assert decision["numbers"]["new_rows"] == 0
    events = told(catalog)
    assert [one["event"] for one in events] == ["promoted", "nothing_to_do"]
    assert events[0]["text"] == "version 2 of rpo-policy-smoke: promoted over 1"


def test_a_refresh_in_stages_decides_first_and_tells_at_its_end(open_project):
    refresh, catalog = open_project()
    catalog.save("source_parts", [part(5)])
    assert refresh.begin()
    assert catalog.load("refresh_outcome")["event"] == "started"
    work(catalog)()
    refresh.end()
    assert not refresh.begin()
    assert catalog.load("refresh_outcome")["event"] == "promoted"
    assert [one["event"] for one in told(catalog)] == ["promoted", "nothing_to_do"]


def test_a_stage_that_failed_is_told_and_makes_the_next_refresh_work(open_project):
    refresh, catalog = open_project()
    assert refresh.begin()
    refresh.fail("a stage of MLflow run r1 failed")
    assert told(catalog)[-1]["text"] == "the refresh failed: a stage of MLflow run r1 failed"
    assert refresh.begin()
    reasons = catalog.load("refresh_decision")["reasons"]
    assert "did not finish: a stage of MLflow run r1 failed" in reasons[0]


def test_a_refresh_in_stages_that_meets_a_run_does_not_begin(open_project):
    refresh, _ = open_project()
    with only_run(refresh.lock), pytest.raises(BusyError, match="another run is at work"):
        refresh.begin()


def test_enough_new_rows_are_work(settled, project, caplog):
    caplog.set_level(logging.INFO)
    write_log(project, num_rows=8)
    refresh, catalog = settled()
    refresh.run(work(catalog))
    assert "there is work: 3 new rows (refresh.min_new_rows: 3)" in caplog.text
    assert catalog.load("refresh_outcome")["event"] == "promoted"
    refresh.run(must_not_run)


def test_a_run_that_failed_is_told_and_tried_again(settled, project):
    write_log(project, num_rows=8)

    def fail():
        raise TrainingError("the loss is not finite")

    refresh, catalog = settled()
    with pytest.raises(TrainingError):
        refresh.run(fail)
    assert told(catalog)[-1]["text"] == "the refresh failed: the loss is not finite"
    catalog.save("consumed", {"parts": [part(8)]})
    refresh.run(work(catalog))
    reason = catalog.load("refresh_decision")["reasons"][0]
    assert reason.endswith("did not finish: the loss is not finite")


def test_a_killed_run_is_tried_again(settled):
    refresh, catalog = settled()
    started = {"at": datetime.now(UTC).isoformat(), "event": "started", "reason": "killed"}
    catalog.save("refresh_outcome", started)
    catalog.save("source_parts", [part(5)])
    refresh.run(work(catalog))
    assert "did not finish" in catalog.load("refresh_decision")["reasons"][0]


def test_a_second_run_finds_the_first_at_work(settled):
    refresh, _ = settled()
    with only_run(refresh.lock), pytest.raises(BusyError, match="another run is at work"):
        refresh.run(must_not_run)


def champion_and_previous(project):
    """A registry in which version 2 is champion and 1 was before it."""
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    client.create_registered_model("rpo-policy-smoke")
    for alias in ("previous", "champion"):
        version = client.create_model_version("rpo-policy-smoke", "file:///nowhere").version
        client.set_registered_model_alias("rpo-policy-smoke", alias, version)
    return client


LIVE = {"min_ratings": 20, "margin": 0.1, "confidence": 0.95}


def test_worse_live_ratings_are_an_alarm_and_roll_back_once(settled, project, caplog):
    client = champion_and_previous(project)
    write_log(project, num_rows=5, v1=0.5, v2=-0.5)
    refresh, catalog = settled(live_ratings=LIVE, min_new_rows=10**6, max_age_days=30)
    refresh.run(must_not_run)
    alarm = told(catalog)[-2]
    assert alarm["event"] == "alarm"
    assert alarm["live_ratings"]["difference"]["value"] == pytest.approx(-1.0)
    assert "ratings of champion 2 less those of previous 1: -1.000" in caplog.text
    assert alarm["text"].endswith("nothing was changed")
    assert 0 <= catalog.load("refresh_decision")["numbers"]["age_days"] < 1
    refresh, catalog = settled(live_ratings=LIVE, min_new_rows=10**6, on_alarm="rollback")
    refresh.run(must_not_run)
    assert catalog.load("live_ratings")["rollback"]["champion_after"] == "1"
    assert client.get_model_version_by_alias("rpo-policy-smoke", "champion").version in ("1", 1)
    num_told = len(told(catalog))
    refresh.run(must_not_run)
    assert [one["event"] for one in told(catalog)[num_told:]] == ["nothing_to_do"]


def test_the_address_of_the_webhook_comes_from_conf_local(settled, project):
    secret = "http://127.0.0.1:1/a-token-that-nobody-may-see"
    file = project / "conf/local/credentials.yml"
    file.write_text(yaml.safe_dump({"notifications": {"webhook": secret}}))
    quick = {"attempts": 1, "events": ["nothing_to_do"]}
    refresh, catalog = settled(notifications=quick)
    refresh.run(must_not_run)
    assert told(catalog)[-1]["delivered"] is False
    assert "a-token" not in json.dumps(told(catalog))


def test_credentials_that_cannot_be_read_are_refused_without_quoting_them(settled, project):
    (project / "conf/local/credentials.yml").write_text("notifications: a-token")
    with pytest.raises(ConfigError, match=r"conf/local/credentials\.yml") as error:
        settled()
    assert "a-token" not in str(error.value)
