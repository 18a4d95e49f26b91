"""The Compose file keeps its secrets in the environment and asks for an image that can be built."""

import re
import tomllib

import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
REQUIRED = re.compile(r"\$\{(\w+):\?set it in deploy/\.env\}")


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_every_secret_comes_from_the_environment():
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", variable):
                assert REQUIRED.fullmatch(value), f"{name}: {variable}"


def test_the_example_names_every_variable_that_is_needed_and_holds_no_value():
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    named = [line.removesuffix("=") for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"\w+", name) for name in named)
    assert set(named) == set(REQUIRED.findall((DEPLOY / "compose.yaml").read_text()))
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_image_of_the_services_is_built_with_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    ours = [s for s in compose()["services"].values() if s["image"] == "rpo-pipeline"]
    assert len(ours) == 3
    for service in ours:
        build = service["build"]
        assert set(build["args"]["EXTRAS"].split(",")) <= set(extras)
        assert (DEPLOY / build["context"] / "Dockerfile").is_file()
    (default,) = re.findall(r"ARG EXTRAS=(.*)", (ROOT / "Dockerfile").read_text())
    assert default in extras  # pip takes no empty list
