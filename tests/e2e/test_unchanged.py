"""Runs on a project that has nothing new, and on one that has one new row."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from rpo_pipeline.catalog.runner import ALWAYS
from rpo_pipeline.pipeline_registry import register_pipelines
from tests.e2e.conftest import kedro


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory):
    folder = Path(shutil.copytree(finished["folder"], tmp_path_factory.mktemp("copy") / "project"))
    command = ("run", "--env", "smoke", "--params", "training.learning_rate=0")
    kedro(folder, *command)  # the copied project has a champion in another place
    settled = (folder / "data/smoke/08_reporting/summary.json").stat().st_mtime_ns
    unchanged = kedro(folder, *command)
    after = (folder / "data/smoke/08_reporting/summary.json").stat().st_mtime_ns
    with (folder / "data/01_raw/feedback.jsonl").open("a") as log:
        row = {"prompt": "A new prompt?", "response": "A new answer.", "thumbs": "up"}
        log.write(json.dumps(row) + "\n")
    known = pd.read_parquet(folder / "data/smoke/05_model_input/reference_logps.parquet")
    new_row = kedro(folder, *command)
    return {
        "unchanged": unchanged,
        "summary_untouched": settled == after,
        "new_row": new_row,
        "num_known": len(known),
    }


def test_a_run_with_nothing_new_says_so_and_leaves_everything_as_it_was(runs):
    assert runs["unchanged"].returncode == 0
    nodes = register_pipelines()["refresh"].nodes
    skipped = sum(ALWAYS not in node.tags for node in nodes)
    assert f"{skipped} of {len(nodes)} nodes were skipped" in runs["unchanged"].stderr
    assert runs["summary_untouched"]


def test_a_new_row_runs_what_depends_on_it_and_reuses_what_is_known(runs):
    assert runs["new_row"].returncode == 0
    assert f"1 rows to score, {runs['num_known']} in the cache" in runs["new_row"].stderr
    assert "train_policy runs: changed: training_rows" in runs["new_row"].stderr
