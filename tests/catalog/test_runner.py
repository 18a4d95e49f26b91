"""The runner on a real catalog of files."""

import json
import logging

import numpy as np
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from rpo_pipeline.catalog import AtomicFileDataset
from rpo_pipeline.catalog.runner import ALWAYS, FreshnessRunner, refuse_several
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.storage import freshness

RUNS = []


def double(number, settings):
    RUNS.append("double")
    return number * settings["factor"]


def sign(number):
    RUNS.append("sign")
    return bool(np.sign(number) > 0)


def describe(positive):
    RUNS.append("describe")
    if positive is None:
        raise ValueError
    return f"positive: {positive}"


def ask():
    RUNS.append("ask")
    return 1


NODES = [
    Node(double, ["number", "params:settings"], "doubled", name="double"),
    Node(sign, "doubled", "positive", name="sign"),
    Node(describe, "positive", "description", name="describe"),
    Node(ask, None, "answer", name="ask", tags=ALWAYS),
]


@pytest.fixture
def run(tmp_path):
    def save(name, value):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))

    def run(factor=2, only_missing_outputs=False, model=None, from_nodes=(), **files):
        for name, value in files.items():
            save(name, value)
        names = ["number", "doubled", "positive", "description", "answer", "run_ledger"]
        entries = {
            name: AtomicFileDataset(
                filepath=str(tmp_path / f"{name}.json"),
                dataset={"type": "json.JSONDataset"},
                missing_ok=name == "run_ledger",
            )
            for name in names
        }
        settings = {"factor": factor, "labelers": [{"name_or_path": str(model)}]}
        catalog = DataCatalog({**entries, "params:settings": MemoryDataset(settings)})
        RUNS.clear()
        settings = {"only_missing_outputs": only_missing_outputs}
        pipeline = Pipeline(NODES)
        pipeline = pipeline.from_nodes(*from_nodes) if from_nodes else pipeline
        FreshnessRunner().run(pipeline, catalog, **settings)
        return set(RUNS)

    return run


def test_a_second_run_asks_the_world_outside_and_nothing_else(run, caplog):
    assert run(number=3) == {"double", "sign", "describe", "ask"}
    with caplog.at_level(logging.INFO):
        assert run() == {"ask"}
    assert "3 of 4 nodes were skipped" in caplog.text


def test_a_result_that_did_not_change_wakes_none_of_those_behind_it(run, caplog):
    run(number=3)
    with caplog.at_level(logging.INFO):
        assert run(number=4) == {"double", "sign", "ask"}
    assert "double runs: changed: number" in caplog.text


def test_a_changed_parameter_is_named_as_the_reason(run, caplog):
    run(number=3)
    with caplog.at_level(logging.INFO):
        assert run(factor=-2) == {"double", "sign", "describe", "ask"}
    assert "double runs: changed: settings" in caplog.text


def test_other_weights_in_a_folder_that_a_parameter_names_wake_what_reads_it(run, tmp_path, caplog):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    run(number=3, model=model)
    assert run(model=model) == {"ask"}
    (model / "model.safetensors").write_bytes(b"two")
    with caplog.at_level(logging.INFO):
        assert run(model=model) == {"double", "ask"}
    assert f"double runs: changed: content of {model}" in caplog.text


def test_a_changed_parameter_of_a_node_that_is_left_out_is_warned_of(run, caplog):
    run(number=3)
    assert run(factor=-2, from_nodes=["describe"]) == set()
    assert "parameters were others when they last ran: double (settings). They stay" in caplog.text
    caplog.clear()
    run(from_nodes=["describe"])
    run(factor=-2, from_nodes=["double"])
    assert "leaves out" not in caplog.text


@pytest.mark.parametrize("damage", ["lost", "edited"])
def test_a_result_that_is_lost_or_was_edited_is_made_again(run, tmp_path, damage):
    run(number=3)
    file = tmp_path / "positive.json"
    file.unlink() if damage == "lost" else file.write_text("false")
    assert run() == {"sign", "ask"}
    assert json.loads(file.read_text()) is True


def test_a_node_that_failed_runs_again_and_those_before_it_do_not(run, monkeypatch):
    code = describe.__code__
    monkeypatch.setattr(describe, "__code__", (lambda positive: positive.nothing).__code__)
    with pytest.raises(AttributeError):
        run(number=3)
    monkeypatch.setattr(describe, "__code__", code)
    assert run() == {"describe", "ask"}


def test_a_run_without_a_ledger_runs_every_node():
    catalog = DataCatalog({"answer": MemoryDataset()})
    RUNS.clear()
    FreshnessRunner().run(Pipeline([NODES[3]]), catalog)
    assert RUNS == ["ask"]


def test_the_missing_outputs_alone_are_made_where_that_is_asked_for(run, tmp_path):
    run(number=3)
    (tmp_path / "positive.json").unlink()
    assert run(only_missing_outputs=True) <= {"sign", "describe", "ask"}
    assert json.loads((tmp_path / "positive.json").read_text()) is True


@pytest.mark.parametrize("runner", ["ThreadRunner", "<kedro.runner.ParallelRunner object>"])
def test_runners_of_several_nodes_are_refused(runner):
    with pytest.raises(ConfigError, match="cannot run this project"):
        refuse_several(runner)


@pytest.mark.parametrize("runner", [None, "None", "SequentialRunner", "x.FreshnessRunner"])
def test_runners_of_one_node_at_a_time_are_taken(runner):
    refuse_several(runner)


def test_an_upgrade_of_a_library_wakes_what_computes_with_it_and_is_named(run, monkeypatch, caplog):
    monkeypatch.setattr(freshness, "installed_version", {"numpy": "1.0"}.get)
    run(number=3)
    assert run() == {"ask"}
    monkeypatch.setattr(freshness, "installed_version", {"numpy": "1.1"}.get)
    with caplog.at_level(logging.INFO):
        assert run() == {"sign", "ask"}
    assert "sign runs: changed: version of numpy" in caplog.text


def test_a_dataset_and_parameters_of_one_name_are_told_apart(tmp_path):
    def run(data, factor):
        (tmp_path / "settings.json").write_text(json.dumps(data))
        entries = {
            name: AtomicFileDataset(
                filepath=str(tmp_path / f"{name}.json"),
                dataset={"type": "json.JSONDataset"},
                missing_ok=name == "run_ledger",
            )
            for name in ("settings", "doubled", "run_ledger")
        }
        catalog = DataCatalog({**entries, "params:settings": MemoryDataset({"factor": factor})})
        node = Node(double, ["settings", "params:settings"], "doubled", name="double")
        RUNS.clear()
        FreshnessRunner().run(Pipeline([node]), catalog)
        return RUNS

    assert run(3, 2) == ["double"]
    assert run(3, 2) == []
    assert run(4, 2) == ["double"]
    assert run(4, 3) == ["double"]
