"""A run that is started from elsewhere, and one by a runner that this project does not take."""

import subprocess
import sys

from rpo_pipeline.ingestion.sample_data import write_sample_data
from tests.e2e.conftest import kedro

NOTEBOOK = """
import os, sys
from pathlib import Path
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner, ThreadRunner
from rpo_pipeline.errors import ConfigError
os.umask(0o022)
project = Path(sys.argv[1])
bootstrap_project(project)
try:
    with KedroSession.create(project_path=project, env="smoke") as session:
        session.run(pipeline_names=["data_ingestion"], runner=ThreadRunner())
except ConfigError as err:
    print(f"said: {err}")
assert not (project / "mlflow.db").exists()
with KedroSession.create(project_path=project, env="smoke") as session:
    session.run(pipeline_names=["data_ingestion"], runner=SequentialRunner(is_async=True))
print(Path.cwd(), oct(os.umask(0o022)))
"""


def test_a_notebook_elsewhere_runs_in_the_projects_folder_and_leaves_private_files(
    project, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("notebooks")
    write_sample_data(project / "data/01_raw/feedback.jsonl", 200, seed=0)
    command = [sys.executable, "-c", NOTEBOOK, str(project)]
    completed = subprocess.run(
        command, cwd=elsewhere, capture_output=True, text=True, check=False, timeout=300
    )
    assert completed.returncode == 0, completed.stderr
    assert "said: ThreadRunner cannot run this project" in completed.stdout
    last = completed.stdout.splitlines()[-1]
    assert last == f"{elsewhere} 0o22"
    assert list(elsewhere.iterdir()) == []
    written = [path for path in (project / "data/smoke").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in [*written, project / "mlflow.db", *(project / "mlruns").rglob("*.json")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_runner_of_several_nodes_is_refused_in_one_sentence_before_anything_is_written(project):
    completed = kedro(project, "run", "--env", "smoke", "--runner", "ParallelRunner")
    assert completed.returncode == 1
    (line,) = [line for line in completed.stderr.splitlines() if line.startswith("Error:")]
    assert "ParallelRunner cannot run this project" in line
    assert "Traceback" not in completed.stderr
    assert not (project / "data/smoke").exists()
