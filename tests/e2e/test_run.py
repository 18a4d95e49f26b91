"""`kedro run --env smoke`, from the log to the registry."""

import json
import re

import pandas as pd
import pytest
from mlflow import MlflowClient

MODEL = "rpo-policy-smoke"


@pytest.fixture
def data(finished):
    return finished["folder"] / "data" / "smoke"


@pytest.fixture
def client(finished):
    return MlflowClient(f"sqlite:///{finished['folder'] / 'mlflow.db'}")


@pytest.fixture
def runs(client):
    experiment = client.get_experiment_by_name("rpo_pipeline")
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return found[:2]  # other tests use the project too


def report_of(finished, name):
    return json.loads(finished["first_reporting"][name])


def test_both_runs_end_with_exit_code_zero(finished):
    assert finished["first"].returncode == 0, finished["first"].stderr
    assert finished["second"].returncode == 0, finished["second"].stderr


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("02_intermediate/quarantine.parquet", "origin line reason raw"),
        (
            "03_primary/feedback.parquet",
            "row_id prompt_id prompt response raw_reward num_ratings reward_source split origin "
            "timestamp model_version behaviour_logps",
        ),
        ("04_feature/rewards.parquet", "row_id raw_reward reward labeler"),
        ("05_model_input/reference_logps.parquet", "row_id logps num_tokens"),
        (
            "05_model_input/partition.parquet",
            "prompt_id n n_used log_z log_z_se ess target_mean target_std",
        ),
        ("05_model_input/targets.parquet", "row_id target"),
    ],
)
def test_every_table_of_the_contract_is_there_with_its_columns(data, file, columns):
    assert set(columns.split()) <= set(pd.read_parquet(data / file).columns)


@pytest.mark.parametrize("model", ["reference", "policy"])
def test_models_are_hugging_face_directories_of_safetensors(data, model):
    names = {path.name for path in (data / "06_models" / model).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_the_row_account_adds_up(finished, data):
    account = report_of(finished, "row_account.json")
    read = account.pop("read")
    assert read == sum(account.values()) == 1799
    assert account["quarantined"] == len(
        pd.read_parquet(data / "02_intermediate/quarantine.parquet")
    )
    assert account["kept"] == len(pd.read_parquet(data / "03_primary/feedback.parquet"))


def test_no_prompt_is_in_two_splits_and_every_split_has_prompts(data):
    feedback = pd.read_parquet(data / "03_primary/feedback.parquet")
    assert feedback.groupby("prompt_id")["split"].nunique().eq(1).all()
    assert set(feedback["split"]) == {"train", "validation", "test"}


def test_the_summary_holds_the_numbers_of_the_contract(finished):
    summary = report_of(finished, "summary.json")
    assert summary["champion"] is None
    for numbers in (summary["challenger"], summary["difference"]["vs_reference"]):
        for metric in (
            "reward_mean",
            "win_rate",
            "toxicity_mean",
            "distinct_2",
            "kl_reference",
            "length_mean",
        ):
            assert set(numbers[metric]) == {"value", "low", "high"}
    assert summary["challenger"]["rank_correlation"]["value"] is not None
    assert summary["gate"]["passed"]


def test_the_first_version_became_champion_and_says_why(client):
    version = client.get_model_version_by_alias(MODEL, "champion")
    assert str(version.version) == "1"
    assert version.tags["gate"] == "passed"
    assert "95 % interval" in version.tags["gate_decision"]


def test_a_challenger_that_learned_nothing_fails_the_gate_and_leaves_the_champion(data, client):
    summary = json.loads((data / "08_reporting/summary.json").read_text())
    assert summary["gate"]["passed"] is False
    assert summary["champion_version"] == "1"
    assert summary["difference"]["vs_champion"]["reward_mean"]["value"] is not None
    assert str(client.get_model_version_by_alias(MODEL, "champion").version) == "1"
    challenger = client.get_model_version_by_alias(MODEL, "challenger")
    assert (str(challenger.version), challenger.tags["gate"]) == ("2", "failed")
    assert "previous" not in client.get_registered_model(MODEL).aliases


def test_without_a_learning_rate_the_policy_is_the_reference_to_the_last_token(data):
    summary = json.loads((data / "08_reporting/summary.json").read_text())
    assert summary["difference"]["vs_reference"]["reward_mean"]["value"] == 0
    assert summary["challenger"]["kl_reference"]["value"] == pytest.approx(0, abs=1e-3)


def test_the_second_run_keeps_splits_and_reference(finished, data):
    before = pd.read_parquet(data / "03_primary/splits.parquet")
    assert len(before) == before["prompt_id"].nunique()
    assert (data / "03_primary/splits.parquet").read_bytes() == finished["first_splits"]
    reference = data / "06_models/reference/model.safetensors"
    assert reference.stat().st_mtime_ns == finished["first_reference"]


def test_the_second_run_scores_no_row_of_the_reference_again(finished):
    assert "1745 rows to score, 0 in the cache" in finished["first"].stderr
    assert "0 rows to score, 1745 in the cache" in finished["second"].stderr


def test_every_run_is_one_finished_mlflow_run_with_flat_parameters(runs):
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    parameters = runs[0].data.params
    assert parameters["rpo.estimator"] == "auto"
    assert parameters["policy.from_config.model_type"] == "llama"
    assert runs[1].data.params["training.learning_rate"] == "0.0"


def test_a_run_holds_training_curves_timings_and_headline_numbers(runs, client, data):
    history = client.get_metric_history(runs[1].info.run_id, "train/loss")
    summary = json.loads((data / "07_model_output/training_summary.json").read_text())
    assert [m.step for m in history] == list(range(1, summary["num_steps"] + 1))
    metrics = runs[0].data.metrics
    for name in (
        "warm_start/loss",
        "train/validation_loss",
        "partition/ess_mean",
        "eval/reward_mean",
        "eval/reward_mean_vs_reference",
        "gate/passed",
        "time/train_policy",
    ):
        assert name in metrics


def test_a_run_holds_its_inputs_artifacts_and_origin(runs, client):
    inputs = {entry.dataset.name: entry.dataset.digest for entry in runs[0].inputs.dataset_inputs}
    assert {"raw_rows", "feedback", "quarantine"} <= set(inputs)
    artifacts = {file.path for file in client.list_artifacts(runs[0].info.run_id)}
    assert {"report.html", "summary.json", "row_account.json"} <= artifacts
    tags = runs[0].data.tags
    assert tags["kedro.env"] == "smoke"
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["git.dirty"] == "True"  # the gates were changed after the commit
    assert len(tags["constraints.sha256"]) == 32


def test_the_logged_model_belongs_to_the_run_and_holds_its_metrics(runs, client):
    models = client.search_logged_models([runs[0].info.experiment_id])
    first = next(m for m in models if m.source_run_id == runs[0].info.run_id)
    assert "eval/reward_mean" in {metric.key for metric in first.metrics}


def test_the_report_stands_alone_and_names_its_run_and_code(finished, runs):
    html = finished["first_reporting"]["report.html"].decode()
    outside = re.findall(r'(?:src|href)="(?!#)([^"]*)"|url\((?!#)([^)]*)\)|@import', html)
    assert outside == []
    assert "Earns promotion" in html
    assert runs[0].info.run_id in html
    assert runs[0].data.tags["mlflow.source.git.commit"] in html
