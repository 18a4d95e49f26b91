"""Which results an edit, or another release of a library, makes stale: the real pipeline."""

import logging
import shutil
from functools import cache

import pytest

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.loading import load_checkpoint
from rpo_pipeline.params.extras import EXTRAS
from rpo_pipeline.pipeline_registry import register_pipelines
from rpo_pipeline.storage import freshness
from rpo_pipeline.storage.freshness import (
    PACKAGE,
    code_digest,
    installed_version,
    library_versions,
    result_key,
)
from rpo_pipeline.storage.source_code import SourceCode

SCORING = {
    *("score_reference", "score_mismatched", "sample_reference"),  # estimation
    *("choose_tau", "add_levels"),
    *("score_pairs", "sample_for_all", "gather_rows", "compare_methods"),  # comparison
    *("prepare_reference", "train_policy"),
    *("generate_responses", "score_heldout", "measure_candidate"),
}
EMBEDDING = {
    *("fit_reward_models", "name_labelers", "label_rows", "label_generations"),
    *("measure_labelers", "label_samples", "label_all_samples"),
}
"""A fitted reward model asks which route through a model is exact, which scoring tells."""
LABELLING = {
    *("name_labelers", "label_rows", "label_generations", "measure_candidate"),
    "measure_labelers",
    *("label_samples", "choose_tau", "label_all_samples", "compare_methods"),
}
INGESTION = {
    *("read_sources", "collect_rows", "cluster_prompts", "quarantine_rows"),
    *("assign_splits", "build_feedback", "describe_data"),
}


@cache
def nodes():
    pipelines = register_pipelines().values()
    return {node.short_name: node.func for pipeline in pipelines for node in pipeline.nodes}


def digests(package):
    source = SourceCode({PACKAGE.name: package})
    return {name: code_digest(function, source=source) for name, function in nodes().items()}


@cache
def unedited():
    return digests(PACKAGE)


@pytest.fixture
def woken_by(tmp_path):
    """The nodes whose code edits in a copy of the package change."""
    package = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))

    def woken_by(*edits):
        for file, old, new in edits:
            text = (package / file).read_text()
            assert old in text, (file, old)
            (package / file).write_text(text.replace(old, new, 1))
        return {name for name, digest in digests(package).items() if digest != unedited()[name]}

    return woken_by


def test_a_change_of_how_log_probabilities_are_computed_wakes_all_that_scores(woken_by):
    woken = woken_by(("core/logps.py", 'reduction="none")', 'reduction="none") - 1.0'))
    assert woken == SCORING | EMBEDDING


def test_a_change_of_how_ratings_are_read_wakes_ingestion_alone(woken_by):
    woken = woken_by(("params/ingestion.py", "return ", "return 2 * "))
    assert "read_sources" in woken
    assert woken <= INGESTION


def test_a_change_of_a_scorer_wakes_all_that_labels(woken_by):
    edit = ("labeling/scorers.py", "polarity_scores(response)", "polarity_scores(_)")
    assert woken_by(edit) == LABELLING


@pytest.mark.parametrize(
    ("file", "old", "woken"),
    [
        ("reporting/templates/page.css.j2", "{", {"render_report", "render_comparison"}),
        ("reporting/templates/report_samples.html.j2", "<", {"render_report"}),
        ("reporting/templates/comparison.html.j2", "<", {"render_comparison"}),
        ("reporting/templates/model_card.md.j2", "#", {"write_model_card"}),
        ("judge/templates/compare.j2", "A", LABELLING | {"judge_generations"}),
    ],
)
def test_a_template_wakes_only_what_renders_it(woken_by, file, old, woken):
    assert woken_by((file, old, f" {old}")) == woken


def test_the_report_s_own_code_wakes_the_report_alone(woken_by):
    edit = ("reporting/report.py", "def render_report(", "def render_report(_=0, *,")
    assert woken_by(edit) == {"render_report"}


def test_what_decides_no_result_wakes_nothing(woken_by):
    assert not woken_by(
        ("core/logps.py", "import torch\n", "import torch  # the framework\n"),
        ("engine/scoring.py", '"""Log-probabilities of prompt', '"""Numbers of prompt'),
        ("params/policy.py", "PolicyParams(Params):\n", "PolicyParams(\n    Params\n):\n"),
        ("params/__init__.py", "Typed parameters", "Parameters with types"),
        ("storage/freshness.py", "_NEUTRAL = ", "_NEUTRAL = frozenset() or "),
        ("cli.py", "import ", "import os\nimport "),
        ("hooks.py", "CACHE, LEDGER", "_, CACHE, LEDGER"),
    )


def test_a_node_s_neighbours_in_its_module_do_not_count_but_those_that_call_it_do(woken_by):
    file = "pipelines/partition_estimation/nodes.py"
    edit = (file, "logged = labelled_rows(scored_rows)", "logged = scored_rows")
    assert woken_by(edit) == {"label_samples", "label_all_samples"}


def needing(library):
    return {name for name, function in nodes().items() if library in library_versions(function)}


def test_an_upgrade_of_a_library_wakes_what_computes_or_draws_with_it():
    assert needing("matplotlib") == {"render_report", "render_comparison"}
    assert needing("transformers") == needing("tokenizers")
    assert needing("transformers") >= SCORING
    assert needing("accelerate") == {
        *("prepare_reference", "choose_tau", "train_policy", "compare_methods")
    }
    assert "duckdb" in library_versions(nodes()["build_feedback"])
    assert not needing("tqdm") | needing("pydantic")


def test_every_library_that_a_node_needs_is_known_by_the_name_it_is_installed_by():
    optional = {library for libraries in EXTRAS.values() for library in libraries}
    needed = {name: v for node in nodes().values() for name, v in library_versions(node).items()}
    assert {name for name, version in needed.items() if version is None} <= optional


def test_a_library_that_is_not_installed_has_no_version():
    assert installed_version("nobody_has_this") is None
    assert installed_version("sklearn")


def key(*content):
    return result_key(*content, code=[score_groups], libraries=["torch", "transformers"])


def test_a_key_follows_content_and_the_versions_that_are_installed(monkeypatch):
    before = key("a")
    assert key("a") == before != key("b")
    versions = {"torch": "2.13.0", "transformers": "99"}
    monkeypatch.setattr(freshness, "installed_version", versions.get)
    assert key("a") != before


def test_builds_of_one_release_are_one_version(monkeypatch):
    monkeypatch.setattr(freshness, "version", {"a": "2.13.0+cpu", "b": "2.13.0"}.get)
    assert installed_version("a") == installed_version("b") == "2.13.0"


def test_types_of_parameters_count_in_no_key_beside_their_values():
    assert "rpo_pipeline.params" in freshness.reach(load_checkpoint).modules
    with_types = result_key(code=[load_checkpoint], without=frozenset())
    assert result_key(code=[load_checkpoint]) != with_types


def local_function():
    return logging.getLogger()


def test_a_function_of_another_package_is_followed_where_it_lies():
    found = freshness.reach(local_function)
    assert f"{__name__}" in found.modules
    inner = lambda: local_function  # noqa: E731
    assert "tests.storage.test_freshness" in freshness.reach(inner).modules
