"""One MLflow run of several processes, as a DAG makes it."""

import pytest
from mlflow import MlflowClient

from rpo_pipeline.errors import RegistryError
from tests.registries import tracked_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def opened(folder):
    run = tracked_run(folder)
    run.leave()
    return run


@pytest.fixture
def status(folder, opened):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return lambda: client.get_run(opened.run_id).info.status


def test_a_joined_run_is_the_same_run_and_stays_open_when_a_task_went_well(folder, opened, status):
    task = tracked_run(folder, run_id=opened.run_id)
    assert task.describe() == opened.describe()
    task.complete()
    task.finish("KILLED")  # as the process ends
    assert status() == "RUNNING"


def test_a_task_that_fails_closes_the_run_and_its_next_attempt_opens_it_again(
    folder, opened, status
):
    tracked_run(folder, run_id=opened.run_id).finish("FAILED")
    assert status() == "FAILED"
    tracked_run(folder, run_id=opened.run_id).complete()
    assert status() == "RUNNING"


def test_the_last_task_closes_it(folder, opened, status):
    tracked_run(folder, run_id=opened.run_id).finish("FINISHED")
    assert status() == "FINISHED"


def test_tasks_log_equal_parameters_into_the_run_and_other_ones_are_refused(folder, opened):
    for _ in range(2):
        task = tracked_run(folder, run_id=opened.run_id)
        task.log_params({"rpo": {"tau": 0.5}})
        task.complete()
    task = tracked_run(folder, run_id=opened.run_id)
    with pytest.raises(RegistryError, match=r"begun with other parameters.*rpo\.tau"):
        task.log_params({"rpo": {"tau": 1.0}})


def test_a_run_that_is_not_there_is_named(folder):
    with pytest.raises(RegistryError, match=r"nothing to join.*RPO_MLFLOW_RUN_ID"):
        tracked_run(folder, run_id="0" * 32)
