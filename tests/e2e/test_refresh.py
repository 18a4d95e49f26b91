"""``kedro run`` under a policy, and beside another run."""

import json
import os
import shutil
from pathlib import Path

from rpo_pipeline.operations.lock import only_run
from tests.e2e.conftest import kedro, override

REPORTING = "data/smoke/08_reporting"


def test_a_refresh_without_enough_that_is_new_ends_well_and_says_why(finished, tmp_path):
    folder = Path(shutil.copytree(finished["folder"], tmp_path / "project"))
    notifications = {"events": ["nothing_to_do"]}
    policy = {"when": "needed", "min_new_rows": 50, "max_drift": 0.1, "max_age_days": 30}
    override(folder, "refresh", {**policy, "notifications": notifications})
    summary = (folder / REPORTING / "summary.json").stat().st_mtime_ns
    completed = kedro(folder, "run", "--env", "smoke")
    assert completed.returncode == 0, completed.stderr
    assert "nothing to do: 0 new rows (refresh.min_new_rows: 50)" in completed.stderr
    decision = json.loads((folder / REPORTING / "refresh_decision.json").read_text())
    assert decision["work"] is False
    assert decision["numbers"]["drift"] == 0
    told = json.loads((folder / REPORTING / "refresh/notifications.jsonl").read_text())
    assert told["event"] == "nothing_to_do"
    assert (folder / REPORTING / "summary.json").stat().st_mtime_ns == summary


def test_beside_another_run_a_refresh_ends_well_and_a_part_of_one_does_not(project):
    with only_run(project / REPORTING / "refresh/run.lock"):
        refresh = kedro(project, "run", "--env", "smoke")
        part = kedro(project, "run", "--env", "smoke", "--pipelines", "data_ingestion")
    owner = f"another run is at work here: process {os.getpid()} on"
    assert refresh.returncode == 0
    assert f"nothing to do: {owner}" in refresh.stderr
    assert part.returncode == 1
    assert owner in part.stderr
    assert "Traceback" not in part.stderr
