"""Optional packages are told before any node runs, and imported only where they are asked for."""

import ast
import sys
import tomllib
from copy import deepcopy

import pytest

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.operations.doctor import examine
from rpo_pipeline.params import EXTRAS, validate_blocks, validate_catalog, validate_tracking
from tests.conftest import ROOT, raw_parameters

JUDGE = {
    "type": "judge",
    "endpoint": {"base_url": "http://127.0.0.1:1/v1", "model": "m"},
    "criteria": {"help": {"meaning": "Does it help?", "weight": 1.0}},
    "answer_scale": [1, 5],
}
RULES = {"type": "rules", "weights": {"sentiment": 1.0}}
ENSEMBLE = {"type": "ensemble", "combine": "mean", "members": [RULES, JUDGE]}
LABELERS = [{"type": "column"}, RULES]
PAIRS = {"endpoint": JUDGE["endpoint"], "num_prompts": 5, "rated_pairs": 0}
ASKED_FOR = [
    ("openai", "judge", "labeling", {"labelers": [*LABELERS, JUDGE]}, "labeling.labelers[2]"),
    (
        "openai",
        "judge",
        "evaluation",
        {"labelers": [ENSEMBLE]},
        "evaluation.labelers[0].members[1]",
    ),
    ("openai", "judge", "evaluation", {"judge": PAIRS}, "evaluation.judge"),
    (
        *("bert_score", "similarity", "evaluation"),
        {"encoder": {"name_or_path": "encoder", "layer": 4}},
        "evaluation.encoder",
    ),
    ("lm_eval", "lm-eval", "evaluation", {"lm_eval": {"tasks": ["toy"]}}, "evaluation.lm_eval"),
    (
        *("phonenumbers", "privacy", "ingestion"),
        {"redaction": {"entities": ["phone"]}},
        "ingestion.redaction.entities",
    ),
    (
        *("stdnum", "privacy", "ingestion"),
        {"redaction": {"entities": ["card"]}},
        "ingestion.redaction.entities",
    ),
]
SPARK = {"labels": {"type": "x", "dataset": {"connection": {"backend": "pyspark"}}}}
POSTGRES = {
    "tracking_uri": "postgresql+psycopg:///mlflow",
    "experiment": "x",
    "on_outage": "continue",
    "registry_wait_seconds": 0,
}


def without(monkeypatch, *packages):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(("package", "extra", "block", "change", "place"), ASKED_FOR)
def test_a_feature_without_its_package_is_refused_with_what_to_install(
    monkeypatch, package, extra, block, change, place
):
    parameters = deepcopy(raw_parameters())
    parameters[block] |= change
    without(monkeypatch, package)
    with pytest.raises(ConfigError) as error:
        validate_blocks(parameters)
    said = f"needs the package {package}: pip install 'rpo-pipeline[{extra}]' ({place})"
    assert said in str(error.value)


def test_tables_on_spark_and_a_server_on_postgresql_need_theirs(monkeypatch):
    without(monkeypatch, "pyspark", "psycopg")
    with pytest.raises(ConfigError, match=r"pyspark: pip install 'rpo-pipeline\[spark\]'.*labels"):
        validate_catalog(SPARK)
    with pytest.raises(ConfigError, match=r"psycopg: pip install 'rpo-pipeline\[server\]'"):
        validate_tracking(POSTGRES)


def test_without_any_extra_what_asks_for_none_can_work(monkeypatch):
    without(monkeypatch, *(package for packages in EXTRAS.values() for package in packages))
    validate_blocks(raw_parameters() | {"ingestion": mail_alone()})
    validate_tracking(POSTGRES | {"tracking_uri": "sqlite:///mlflow.db"})


def mail_alone():
    return raw_parameters()["ingestion"] | {"redaction": {"entities": ["email"]}}


def test_every_extra_of_the_project_is_known():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(stated["optional-dependencies"]) == set(EXTRAS)


def imports_at_once(file):
    """Modules that a file imports as soon as it is imported itself."""
    waiting = list(ast.parse(file.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif (
            not isinstance(node, ast.FunctionDef) and "TYPE_CHECKING" not in ast.unparse(node)[:20]
        ):
            waiting += ast.iter_child_nodes(node)


def test_no_module_imports_an_optional_package_before_it_is_asked_for():
    """But for the endpoint of a judge, which nobody imports before he asks one."""
    endpoint = "rpo_pipeline.judge.endpoint"
    optional = {package for packages in EXTRAS.values() for package in packages}
    for file in (ROOT / "src").rglob("*.py"):
        found = list(imports_at_once(file))
        assert not [name for name in found if name.startswith(endpoint)], file
        if file != ROOT / "src" / "rpo_pipeline/judge/endpoint.py":
            assert not [name for name in found if name.partition(".")[0] in optional], file


def test_the_doctor_has_a_line_for_each_extra(project, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    without(monkeypatch, "openai")
    lines = {found.check: str(found) for found in examine(project, "smoke")}
    assert "not installed (openai); not needed by this configuration" in lines["judge"]
    assert "extra, installed" in lines["similarity"]
    assert set(EXTRAS) <= set(lines)
    redaction = "ingestion: {redaction: {entities: [card]}}"
    (project / "conf/smoke/parameters_ingestion.yml").write_text(redaction)
    lines = {found.check: str(found) for found in examine(project, "smoke")}
    assert "installed; needed by ingestion.redaction.entities" in lines["privacy"]
