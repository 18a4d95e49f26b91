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
    assert len(ours) == 4
    for service in ours:
        build = service["build"]
        assert set(build["args"]["EXTRAS"].split(",")) <= set(extras)
        assert (DEPLOY / build["context"] / "Dockerfile").is_file()
    (default,) = re.findall(r"ARG EXTRAS=(.*)", (ROOT / "Dockerfile").read_text())
    assert default in extras  # pip takes no empty list


def test_no_service_keeps_privileges_and_ours_write_to_volumes_alone():
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if service["image"] == "rpo-pipeline":
            assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"]), name
            assert "cap_add" not in service, name


def test_the_store_is_reached_by_the_server_alone():
    networks = compose()["networks"]
    assert networks["store"] == {"internal": True}
    services = compose()["services"]
    inside = {name for name, service in services.items() if "store" in service.get("networks", [])}
    assert inside == {"postgres", "s3", "bucket", "mlflow"}
