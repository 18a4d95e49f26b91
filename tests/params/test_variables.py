"""Environment variables that are set and blank, as env files and Compose leave them."""

import os
import subprocess
import sys

import pytest

from rpo_pipeline.operations.environments import read_environment
from rpo_pipeline.params.variables import prepare_environment, variable
from tests.conftest import ROOT


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_is_unset(monkeypatch, blank):
    monkeypatch.setenv("RPO_DATA", blank)
    assert variable("RPO_DATA") is None
    assert variable("RPO_DATA", "data") == "data"
    monkeypatch.setenv("RPO_DATA", "/mnt/my data")
    assert variable("RPO_DATA", "data") == "/mnt/my data"


def test_an_environment_whose_variables_are_all_blank_is_the_one_without_them(monkeypatch):
    names = ("RPO_DATA", "RPO_CACHE", "RPO_FEEDBACK", "MLFLOW_TRACKING_URI")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    without = read_environment(ROOT, "production")
    for name in names:
        monkeypatch.setenv(name, " ")
    assert read_environment(ROOT, "production") == without


def test_libraries_see_none_of_ours_and_theirs_and_what_may_be_blank_stays(monkeypatch):
    blank = {"RPO_WEBHOOK_URL": "", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": " ", "HF_ENDPOINT": ""}
    for name, value in {**blank, "CUDA_VISIBLE_DEVICES": "", "MLFLOW_TRACKING_URI": "x"}.items():
        monkeypatch.setenv(name, value)
    prepare_environment()
    assert not {"RPO_WEBHOOK_URL", "HF_ENDPOINT"} & os.environ.keys()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["MLFLOW_TRACKING_URI"]) == ("", "x")


def test_they_are_unset_before_a_library_reads_them():
    code = (
        "import rpo_pipeline.registry, mlflow.environment_variables as names;"
        "print(names.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())"
    )
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": ""}
    command = [sys.executable, "-c", code]
    seen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "3"
