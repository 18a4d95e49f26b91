"""A person promotes versions by number, and takes it back."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.e2e.conftest import kedro, override

STEPS = {
    "second": ("promotion", "--params", "promotion.version=2"),
    "first": ("promotion", "--params", "promotion.version=1"),
    "back": ("rollback",),
    "back again": ("rollback",),
}


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """Version 1 is champion of two; then each step, and what it wrote."""
    folder = Path(shutil.copytree(finished["folder"], tmp_path_factory.mktemp("copy") / "project"))
    lenient = {"metric": "reward_mean", "against": "champion", "direction": "above", "bound": "low"}
    override(folder, "promotion", {"gates": [{**lenient, "threshold": -9.0}], "mode": "manual"})
    reporting, results = folder / "data/smoke/08_reporting", {}
    for step, (pipeline, *arguments) in STEPS.items():
        run = kedro(folder, "run", "--env", "smoke", "--pipelines", pipeline, *arguments)
        assert run.returncode == 0, run.stderr
        results[step] = json.loads((reporting / f"{pipeline}.json").read_text())
        measured = json.loads((reporting / "candidate_summary.json").read_text())
        results[step]["measured"] = measured
    return {"folder": folder, **results}


def test_a_named_version_passes_the_gate_anew_where_the_champion_changed_and_is_taken_back_once(
    project, finished
):
    second, first = project["second"], project["first"]
    assert (second["promoted"], second["champion_before"]) == (True, "1")
    assert (first["promoted"], first["champion_before"]) == (True, "2")
    registered = json.loads(finished["first_reporting"]["summary.json"])
    assert (registered["champion"], first["measured"]["champion_version"]) == (None, "2")
    # The same prompts and the same noise: each version is measured as it was.
    for then, now in ((registered, "challenger"), (second["measured"], "champion")):
        assert first["measured"][now]["reward_mean"] == then["challenger"]["reward_mean"]
    assert (project["back"]["rolled_back"], project["back"]["champion_after"]) == (True, "2")
    again = project["back again"]
    assert (again["rolled_back"], again["champion_after"]) == (False, "2")


def test_a_version_carries_what_it_was_made_from_and_the_decision(project):
    client = MlflowClient(f"sqlite:///{project['folder'] / 'mlflow.db'}")
    version = client.get_model_version("rpo-policy-smoke", "1")
    model_id = version.source.removeprefix("models:/")
    files = client.list_logged_model_artifacts(model_id, "artifacts")
    names = {Path(file.path).name for file in files}
    assert {"checkpoint", "normaliser.json", "parameters.json", "report.html"} <= names
    assert {"summary.json", "provenance.json", "model_card.md", "gate.json"} <= names
    assert version.tags["base_licence"] == "none: no base model, built from scratch"
    assert {"data_digest", "reference_fingerprint", "gate_decision"} <= set(version.tags)
    card = (project["folder"] / "data/smoke/08_reporting/model_card.md").read_text()
    assert "1799 rows were read: 1745 kept, 31 quarantined" in card
    assert "not from people" in card
