"""A person promotes versions by number, and takes it back."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.e2e.conftest import kedro, override


@pytest.fixture(scope="module")
def steps(finished, tmp_path_factory):
    """Result and log of each step, on a project whose version 1 is champion of 2 versions."""
    folder = Path(shutil.copytree(finished["folder"], tmp_path_factory.mktemp("copy") / "project"))
    lenient = {"metric": "reward_mean", "against": "champion", "direction": "above", "bound": "low"}
    override(folder, "promotion", {"gates": [{**lenient, "threshold": -9.0}], "mode": "manual"})
    results = []
    for pipeline, *arguments in (
        ("promotion", "--params", "promotion.version=2"),
        ("promotion", "--params", "promotion.version=1"),
        ("rollback",),
        ("rollback",),
    ):
        run = kedro(folder, "run", "--env", "smoke", "--pipelines", pipeline, *arguments)
        assert run.returncode == 0, run.stderr
        file = folder / f"data/smoke/08_reporting/{pipeline}.json"
        results.append((json.loads(file.read_text()), run.stderr))
    return {"folder": folder, "results": results}


def test_a_named_version_is_promoted_after_the_gate_and_measured_again_where_the_champion_changed(
    steps, finished
):
    (second, said), (first, said_again), (back, _), (again, _) = steps["results"]
    assert (second["promoted"], second["champion_before"]) == (True, "1")
    assert ("scoring" in said, "scoring" in said_again) == (False, True)
    assert (first["promoted"], first["champion_before"]) == (True, "2")
    assert first["gate"]["champion_version"] == "2"
    file = steps["folder"] / "data/smoke/08_reporting/candidate_summary.json"
    summary = json.loads(file.read_text())
    before = json.loads(finished["first_reporting"]["summary.json"])
    assert before["champion"] is None
    assert summary["champion"]["reward_mean"] != summary["challenger"]["reward_mean"]
    # The same prompts and the same noise: the version is measured as it was.
    assert summary["challenger"]["reward_mean"] == before["challenger"]["reward_mean"]
    assert (back["rolled_back"], back["champion_after"]) == (True, "2")
    assert (again["rolled_back"], again["champion_after"]) == (False, "2")


def test_the_version_carries_what_it_was_made_from_and_the_decision(steps):
    client = MlflowClient(f"sqlite:///{steps['folder'] / 'mlflow.db'}")
    version = client.get_model_version("rpo-policy-smoke", "1")
    files = client.list_logged_model_artifacts(version.source.removeprefix("models:/"), "artifacts")
    names = {Path(file.path).name for file in files}
    assert {"checkpoint", "normaliser.json", "parameters.json", "report.html"} <= names
    assert {"summary.json", "provenance.json", "model_card.md", "gate.json"} <= names
    assert version.tags["base_licence"] == "none: no base model, built from scratch"
    assert {"data_digest", "reference_fingerprint", "gate_decision"} <= set(version.tags)
    card = (steps["folder"] / "data/smoke/08_reporting/model_card.md").read_text()
    assert "1799 rows were read: 1744 kept, 35 quarantined" in card
    assert "not from people" in card
