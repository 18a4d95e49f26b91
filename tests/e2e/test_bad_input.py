"""What cannot work ends in one message that says what, where and what to do."""

import json
import signal
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from tests.e2e.conftest import kedro, override

RATED = {"thumbs": None, "stars": 3}


@pytest.fixture
def log(project):
    path = project / "data/01_raw/feedback.jsonl"
    write_sample_data(path, 120, seed=0)
    return path


def ingest(project, *arguments):
    return kedro(project, "run", "--env", "smoke", "--pipelines", "data_ingestion", *arguments)


def refused(completed):
    """The message of a run that failed as it should."""
    assert completed.returncode == 1
    assert "Traceback" not in completed.stderr
    message = completed.stderr[completed.stderr.index("Error: ") :]
    assert len(message.splitlines()) < 10
    return message


def write(log, records):
    log.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_missing_file_is_named_with_where_to_set_it(project):
    message = refused(ingest(project))
    assert "no file matches 'data/01_raw/feedback.jsonl'" in message
    assert "ingestion.sources[].path" in message


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("rpo.tau=-1", "rpo.tau: must be a number greater than 0, or `auto`, got -1"),
        ("rpo.estimator=best", "input should be 'auto', 'monte_carlo'"),
        ("training.learning_rat=1", "did you mean learning_rate?"),
    ],
)
@pytest.mark.usefixtures("log")
def test_a_wrong_parameter_stops_the_run_before_any_node(project, parameter, message):
    completed = kedro(project, "run", "--env", "smoke", "--params", parameter)
    assert message in refused(completed)
    assert "Running node" not in completed.stderr
    assert not (project / "mlflow.db").exists()


def test_a_source_without_a_valid_row_is_named_with_an_example(project, log):
    write(log, [{"question": "Hello", "answer": "Hi"}] * 3)
    message = refused(ingest(project))
    assert "feedback.jsonl has no valid row: 3 missing_prompt" in message
    assert '{"question": "Hello"' in message


def test_a_reward_column_of_strings_is_named_as_no_number(project, log):
    source = {"path": "data/01_raw/feedback.jsonl", "ratings": [{"column": "reward"}]}
    override(project, "ingestion", {"sources": [source]})
    write(log, [{"prompt": f"{i}", "response": "Hi", "reward": "great"} for i in range(9)])
    assert "9 reward_not_a_number" in refused(ingest(project))


def test_all_prompts_in_one_split_is_an_error_that_names_the_shares(project, log):
    write(log, [{"prompt": "Hello", "response": f"Hi {i}", **RATED} for i in range(9)])
    message = refused(ingest(project))
    assert "ingestion.split_shares" in message
    assert "prompts must be in train and in test" in message


def test_rewards_that_are_all_equal_leave_nothing_to_learn(project, log):
    write(log, [{"prompt": f"{i}", "response": "Hi", **RATED} for i in range(90)])
    completed = kedro(
        project, "run", "--env", "smoke", "--pipelines", "data_ingestion,reward_labeling"
    )
    assert "there is nothing to learn" in refused(completed)


def test_an_empty_response_and_an_infinite_rating_go_to_quarantine_and_the_run_goes_on(
    project, log
):
    with log.open("a") as file:
        file.write('{"prompt": "Hello", "response": ""}\n')
        file.write('{"prompt": "Hello", "response": "Hi", "stars": Infinity}\n')
    completed = ingest(project)
    assert completed.returncode == 0, completed.stderr
    quarantine = pd.read_parquet(project / "data/smoke/02_intermediate/quarantine.parquet")
    assert quarantine["reason"].tolist()[-2:] == ["missing_response", "reward_not_finite"]
    assert quarantine["line"].tolist()[-2:] == [121, 122]


def test_a_reference_made_from_other_settings_is_not_used_in_silence(finished):
    completed = kedro(
        finished["folder"],
        "run",
        "--env",
        "smoke",
        "--from-nodes",
        "prepare_reference",
        "--to-nodes",
        "prepare_reference",
        "--params",
        "policy.warm_start_epochs=7",
    )
    message = refused(completed)
    assert "policy.warm_start_epochs: 1.0 -> 7.0" in message
    assert "policy.reset_reference=true" in message


def statuses(project):
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rpo_pipeline")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_failed_run_is_marked_failed_in_mlflow(project, log):
    write(log, [{"question": "Hello"}])
    refused(ingest(project))
    assert statuses(project) == ["FAILED"]


@pytest.mark.usefixtures("log")
def test_an_interrupted_run_is_marked_killed_in_mlflow(project):
    command = [sys.executable, "-m", "kedro", "run", "--env", "smoke"]
    with subprocess.Popen(
        command,
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stderr:
            if "Running node: prepare_reference:" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
    assert process.returncode != 0
    assert statuses(project) == ["KILLED"]


@pytest.mark.usefixtures("log")
def test_a_tracking_server_that_does_not_answer_is_named(project):
    file = project / "conf" / "smoke" / "mlflow.yml"
    file.write_text(
        yaml.safe_dump({"tracking_uri": "sqlite:///pyproject.toml/mlflow.db", "experiment": "x"})
    )
    message = refused(ingest(project))
    assert "pyproject.toml/mlflow.db does not answer" in message
    assert "MLFLOW_TRACKING_URI" in message
