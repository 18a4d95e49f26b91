"""The wiring as kedro-viz shows it."""

from functools import cache
from graphlib import TopologicalSorter

import pytest

from rpo_pipeline.catalog.config_loader import environment_names
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.pipeline_registry import STAGES, register_pipelines
from tests.conftest import ROOT


@cache
def catalog():
    return open_configuration(ROOT)["catalog"]


def layer(name):
    return catalog()[name]["metadata"]["kedro-viz"]["layer"]


def test_every_dataset_that_a_pipeline_makes_is_in_the_catalog_with_a_layer():
    for name in register_pipelines()["refresh"].all_outputs():
        assert layer(name)


def test_layers_follow_one_another_so_that_kedro_viz_can_draw_them():
    layers = {name: layer(name) for name in catalog()}
    before = {}
    for node in register_pipelines()["refresh"].nodes:
        for output in node.outputs:
            sources = {layers[name] for name in node.inputs if name in layers}
            before.setdefault(layers[output], set()).update(sources - {layers[output]})
    order = list(TopologicalSorter(before).static_order())
    assert order[-2:] == ["reporting", "registry"]


def test_the_refresh_is_the_default_and_holds_every_node_of_the_six_pipelines():
    pipelines = register_pipelines()
    refresh = pipelines.pop("refresh")
    assert pipelines.pop("__default__").nodes == refresh.nodes
    pipelines.pop("comparison")
    pipelines.pop("rollback")
    assert len(pipelines) == 6
    assert {n.name for p in pipelines.values() for n in p.nodes} == {n.name for n in refresh.nodes}


@pytest.mark.parametrize(
    ("cache", "folder"),
    [
        ("reference_cache", "data/05_model_input/reference_cache"),
        ("label_cache", "data/05_model_input/reference_cache/labels"),
    ],
)
def test_every_environment_shares_what_is_kept_by_content(cache, folder):
    """So that another folder for data costs no log-probability and no label."""
    catalogs = [
        open_configuration(ROOT, env)["catalog"] for env in environment_names(ROOT / "conf")
    ]
    assert {catalog[cache]["filepath"] for catalog in catalogs} == {folder}


def test_kedro_viz_folds_each_pipeline_into_a_box_and_no_dataset_or_parameter_is_renamed():
    pipelines = register_pipelines()
    for name in STAGES:
        assert {node.namespace for node in pipelines[name].nodes} == {name}
    own = catalog().keys() | {"parameters", "mlflow_run"}
    used = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    assert {name for name in used if not name.startswith("params:")} <= own
    assert not [name for name in used if name.startswith("params:") and "." in name]


def test_short_names_of_nodes_are_unique_so_that_a_command_may_leave_the_stage_out():
    pipelines = register_pipelines()
    names = {node.name for pipeline in pipelines.values() for node in pipeline.nodes}
    assert len({name.partition(".")[2] for name in names}) == len(names)
