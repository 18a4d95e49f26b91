"""Experiments and runs that cannot be had are told with what to do about it."""

import shutil
import sqlite3

import pytest
from mlflow import MlflowClient

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.tracking.opening import check_experiment, explain
from tests.registries import tracked_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def run(folder):
    run = tracked_run(folder)
    run.finish("FINISHED")
    return run


@pytest.fixture
def client(run):
    return MlflowClient(run.tracking_uri)


def test_a_deleted_experiment_is_told_with_how_to_restore_it(folder, run, client):
    check_experiment(run.tracking_uri, "test")
    client.delete_experiment(run.experiment_id)
    try:
        for ask in (
            lambda: tracked_run(folder),
            lambda: check_experiment(run.tracking_uri, "test"),
        ):
            with pytest.raises(RegistryError) as error:
                ask()
            assert f"mlflow experiments restore --experiment-id {run.experiment_id}`" in str(
                error.value
            )
            assert "conf/base/mlflow.yml: experiment" in str(error.value)
    finally:
        client.restore_experiment(run.experiment_id)
    tracked_run(folder).finish("FINISHED")


def test_a_moved_project_is_told_how_its_artifacts_are_found_again(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    tracked_run(old).finish("FINISHED")
    (old / "mlruns").mkdir(exist_ok=True)
    old.rename(new)
    with pytest.raises(RegistryError, match=f"ln -s {new / 'mlruns'} {old / 'mlruns'}"):
        tracked_run(new)
    assert not old.exists()
    old.mkdir()
    (old / "mlruns").symlink_to(new / "mlruns")
    tracked_run(new).finish("FINISHED")


def test_a_copied_project_says_that_it_writes_into_the_original(tmp_path, caplog):
    old, new = tmp_path / "old", tmp_path / "new"
    tracked_run(old).finish("FINISHED")
    (old / "mlruns").mkdir(exist_ok=True)
    shutil.copytree(old, new)
    tracked_run(new).finish("FINISHED")
    assert f"keeps its artifacts in {old / 'mlruns'}, outside this project" in caplog.text


def test_a_deleted_run_is_told_with_how_to_restore_it(folder, client):
    run = tracked_run(folder)
    run.leave()
    client.delete_run(run.run_id)
    with pytest.raises(RegistryError, match=f"mlflow runs restore --run-id {run.run_id}"):
        tracked_run(folder, run_id=run.run_id)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("run_id", ["../elsewhere", "no such run", "0" * 32])
def test_what_is_no_run_cannot_be_joined(folder, run_id):
    with pytest.raises(RegistryError, match=r"nothing to join.*RPO_MLFLOW_RUN_ID"):
        tracked_run(folder, run_id=run_id)


@pytest.mark.usefixtures("run")
def test_a_database_of_another_mlflow_is_told_with_both_ways_out(folder):
    shutil.copy(folder / "mlflow.db", folder / "other.db")
    with sqlite3.connect(folder / "other.db") as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(RegistryError) as error:
        tracked_run(folder, "sqlite:///other.db")
    assert f"mlflow db upgrade sqlite:///{folder}/other.db`" in str(error.value)
    assert "If by a newer one" in str(error.value)


def test_a_database_that_another_process_holds_is_no_server_that_is_away(folder, run):
    holder = sqlite3.connect(folder / "mlflow.db")
    holder.execute("begin exclusive")
    with pytest.raises(sqlite3.OperationalError) as error:
        sqlite3.connect(folder / "mlflow.db", timeout=0).execute("select * from runs")
    holder.rollback()
    assert explain(run.tracking_uri, error.value).startswith("another process holds the database")


def test_a_missing_driver_is_named():
    error = ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
    assert "needs the package psycopg" in explain("postgresql://h/x", error)


def test_names_and_values_that_are_too_long_or_odd_for_mlflow_are_logged_all_the_same(
    folder, run, client, caplog
):
    run = tracked_run(folder)
    odd = {f"word{number}": number for number in range(150)} | {"👍 yes: ja": 1, "x" * 300: 2}
    run.log_params({"values": {**odd, "long": "y" * 7000}})
    run.log_metrics({"eval/nan": float("nan"), "eval/inf": float("inf"), "eval/fine": 1.0})
    run.finish("FINISHED")
    found = client.get_run(run.run_id).data
    assert len(found.params) == 153
    assert found.params["values._ yes_ ja"] == "1"
    assert len(found.params["values.long"]) == 6000
    assert found.metrics == {"eval/fine": 1.0}
    assert "values.long is logged cut" in caplog.text
