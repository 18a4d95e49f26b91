"""The DAG that `kedro airflow create` makes, and a run of it to the end."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.operations.environments import open_configuration, read_environment
from rpo_pipeline.pipeline_registry import register_pipelines
from tests.conftest import ROOT
from tests.e2e.conftest import kedro, override

AIRFLOW = ROOT / ".venv-airflow" / "bin" / "airflow"


@pytest.fixture
def create(project):
    """Make the DAG file of a pipeline."""

    def create(pipeline: str = "__default__") -> Path:
        completed = kedro(
            project,
            *("airflow", "create", "--env", "smoke", "--pipelines", pipeline),
            *("--jinja-file", str(ROOT / "deploy/airflow/dag.py.j2"), "--target-dir", "dags"),
            *("--params", f"project={project},python={sys.executable},retries=0"),
        )
        assert completed.returncode == 0, completed.stderr
        (file,) = (project / "dags").iterdir()
        return file

    return create


def untranscoded(names: set[str]) -> set[str]:
    return {name.partition("@")[0] for name in names}


def stages(file: Path) -> list[str]:
    """Tasks between the first and the last."""
    (value,) = (
        node.value
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "STAGES"
    )
    return ast.literal_eval(value)


def test_the_tasks_together_are_the_refresh_in_an_order_that_works(create):
    pipelines = register_pipelines()
    refresh, tasks = pipelines["refresh"], [pipelines[name] for name in stages(create())]
    assert sum(tasks, start=Pipeline([])).nodes == refresh.nodes
    made = set()
    for task in tasks:
        made |= task.all_outputs()
        assert not untranscoded(task.inputs() & refresh.all_outputs()) - untranscoded(made)


def test_any_other_pipeline_is_one_task_of_a_dag_of_its_own(create):
    file = create("comparison")
    assert stages(file) == ["comparison"]
    assert 'dag_id="rpo_pipeline_smoke_comparison"' in file.read_text()


def test_every_dataset_that_crosses_a_task_boundary_is_persisted():
    """Between nodes of one task too: a task that is tried again starts in another process."""
    catalog = DataCatalog.from_config(open_configuration(ROOT)["catalog"])
    refresh = register_pipelines()["refresh"]
    shared = refresh.datasets() - {"parameters", "mlflow_run"}  # every task has these anew
    shared -= {name for name in shared if name.startswith("params:")}
    assert len(shared) > 30
    for name in shared:
        assert catalog[name]._describe()["filepath"], name


@pytest.mark.integration
def test_the_dag_runs_to_the_end_as_one_mlflow_run_and_is_skipped_without_work(
    create, project, tmp_path
):
    override(project, "refresh", {"when": "needed", "min_new_rows": 1})
    write_sample_data(project / "data/01_raw/feedback.jsonl", None, seed=0)
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(create().parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(project / "src"),
    }

    def airflow(*arguments: str) -> str:
        completed = subprocess.run(
            [AIRFLOW, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout + completed.stderr

    airflow("db", "migrate")
    airflow("dags", "test", "rpo_pipeline_smoke")
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rpo_pipeline")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "refresh")
    assert {"time/read_sources", "train/loss", "gate/passed"} <= set(run.data.metrics)
    model = read_environment(project, "smoke").model_name
    assert client.get_model_version(model, "1").run_id == run.info.run_id
    outcome = json.loads((project / "data/smoke/08_reporting/refresh_outcome.json").read_text())
    assert outcome["version"] == "1"

    said = airflow("dags", "test", "rpo_pipeline_smoke")
    assert "nothing to do: 0 new rows" in said
    assert len(client.search_runs([experiment.experiment_id])) == 1
