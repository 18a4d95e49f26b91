import json

import pytest

from rpo_pipeline.engine import StoredModel
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.evaluation.harness import add_tasks, run_tasks
from rpo_pipeline.params import LmEvalParams
from rpo_pipeline.registry.gate import decide
from tests.conftest import block, build_small
from tests.reporting.findings import make_summary

TASK = """
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
ROLLING = """
task: bits
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


def test_metrics_of_tasks_stand_beside_the_others_and_a_gate_may_name_them():
    numbers = {"lm_eval_toy_acc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    tasks = {"reference": numbers, "challenger": numbers, "difference": {"vs_reference": numbers}}
    summary = make_summary(look=1)
    merged = add_tasks(summary, tasks)
    assert merged.challenger == {**summary.challenger, **numbers}
    assert merged.champion is None
    gates = [{"metric": "lm_eval_toy_acc", "against": "champion", "direction": "above"}]
    gates[0] |= {"threshold": 0.45, "bound": "low"}
    check = decide(merged, block("promotion", gates=gates)).checks[-1]
    assert check["observed"] == pytest.approx(0.4, abs=0.01)  # of Student's t
    assert (check["against"], check["passed"]) == ("reference", False)
    assert add_tasks(summary, {}) == summary


@pytest.fixture
def toy(tmp_path):
    """A task whose even documents have the first choice as their answer."""
    lines = [
        {"question": f"Kettle {i}?", "choices": ["we are sorry", "no"], "answer": i % 2}
        for i in range(12)
    ]
    data = tmp_path / "toy.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "toy.yaml").write_text(TASK.format(data=data))
    (tmp_path / "bits.yaml").write_text(ROLLING.format(data=data))
    return LmEvalParams(tasks=["toy"], include_path=str(tmp_path), limit=10)


def run(models, settings):
    engines = {
        name: StoredModel(model, block("policy"), block("training", micro_batch_tokens=4096))
        for name, model in models.items()
    }
    return run_tasks(engines, settings, num_resamples=100)


@pytest.mark.integration
@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_tasks_run_offline_on_every_model_and_differences_are_paired(toy, tmp_path, model_type):
    for seed in (0, 1):
        build_small(model_type, seed).save(tmp_path / str(seed))
    models = {"reference": tmp_path / "0", "champion": tmp_path / "0", "challenger": tmp_path / "1"}
    metrics = run(models, toy)
    ours, theirs = (metrics[name]["lm_eval_toy_acc"] for name in ("challenger", "reference"))
    assert metrics["champion"]["lm_eval_toy_acc"] == theirs
    assert 0 <= ours["value"] <= 1
    assert ours["low"] <= ours["value"] <= ours["high"]
    difference = metrics["difference"]["vs_champion"]["lm_eval_toy_acc"]
    assert difference["value"] == pytest.approx(ours["value"] - theirs["value"])
    same = run({**models, "challenger": tmp_path / "0"}, toy)["difference"]["vs_reference"]
    assert set(same["lm_eval_toy_acc"].values()) == {0.0}  # as independent, it would have a width


@pytest.mark.integration
def test_a_metric_without_a_standard_error_has_a_difference_and_no_interval(toy, tmp_path):
    for seed in (0, 1):
        build_small("llama", seed).save(tmp_path / str(seed))
    models = {"reference": tmp_path / "0", "challenger": tmp_path / "1"}
    metrics = run(models, toy.model_copy(update={"tasks": ["bits"]}))
    ours, theirs = (metrics[n]["lm_eval_bits_bits_per_byte"] for n in ("challenger", "reference"))
    difference = metrics["difference"]["vs_reference"]["lm_eval_bits_bits_per_byte"]
    value = ours["value"] - theirs["value"]
    assert difference == {"value": pytest.approx(value), "low": None, "high": None}
    assert value != 0


@pytest.mark.integration
def test_a_task_that_nobody_knows_is_an_error_with_where_to_change_it(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"no task tay .*evaluation\.lm_eval\.tasks"):
        run({"reference": tmp_path}, toy.model_copy(update={"tasks": ["toy", "tay"]}))
