"""One line a check, and exit code 1 where a run could not work."""

import pytest
import yaml

from rpo_pipeline.operations.doctor import examine
from rpo_pipeline.storage.durable import put_in_place
from tests.registries import free_port


def states(project, env="smoke"):
    return {found.check: found for found in examine(project, env)}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_project_that_can_run_has_no_failed_check(project):
    found = states(project)
    assert {"python", "versions", "gpu", "parameters", "disk", "tracking"} <= set(found)
    assert {"registry", "outbox", "hub", "catalog"} <= set(found)
    assert "failed" not in {one.state for one in found.values()}
    assert not (project / "mlflow.db").exists()


def test_parameters_that_cannot_work_are_named(project):
    file = project / "conf/smoke/parameters_rpo.yml"
    file.write_text(yaml.safe_dump({"rpo": {"tau": -1}}))
    found = states(project)["parameters"]
    assert found.state == "failed"
    assert "rpo.tau" in found.words


def test_a_dead_server_fails_and_its_password_is_hidden(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2222@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = states(project)
    assert (found["tracking"].state, found["registry"].state) == ("failed", "failed")
    assert "hunter2222" not in "".join(map(str, found.values()))


def test_what_was_not_sent_and_what_is_not_stored_are_named(project):
    (project / "data/smoke/mlflow_outbox/run-1").mkdir(parents=True)
    catalog = project / "conf/base/catalog_rpo_training.yml"
    written = catalog.with_suffix(".new")
    written.write_text(catalog.read_text().replace("\npolicy:", "\npolicy_elsewhere:"))
    put_in_place(written, catalog)
    found = states(project)
    assert (found["outbox"].state, found["catalog"].state) == ("warning", "failed")
    assert "run-1" in found["outbox"].words
    assert "policy" in found["catalog"].words
