"""Every scheduler's file is valid, and all of them start the same command at the same time."""

import os
import shutil
import subprocess
import sys
from datetime import datetime

import kubernetes_validate
import pytest
import yaml
from croniter import croniter

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
COMMAND = "kedro run --env production"
PROJECT = "/opt/rpo_pipeline"


def cron_line() -> str:
    lines = (DEPLOY / "cron/rpo-refresh").read_text().splitlines()
    (line,) = [line for line in lines if not line.startswith(("#", "SHELL="))]
    return line


def manifests() -> dict[str, dict]:
    """Of Kubernetes, by kind."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes/refresh.yaml").read_text())
    return {manifest["kind"]: manifest for manifest in found}


def cron_job() -> dict:
    return manifests()["CronJob"]


def workflow() -> dict:
    file = DEPLOY / "github-actions/refresh.yml"
    return yaml.load(file.read_text(), yaml.BaseLoader)  # `on` is a word, not a truth value


@pytest.fixture
def installed(tmp_path):
    """A folder that looks like the deployed project; its ``kedro`` notes how it was called."""
    (tmp_path / "data").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    kedro = tmp_path / ".venv/bin/kedro"
    kedro.write_text('#!/bin/sh\necho "kedro $* as $MLFLOW_TRACKING_USERNAME"\n')
    kedro.chmod(0o755)
    (tmp_path / "env").write_text("MLFLOW_TRACKING_USERNAME=nightly\n")
    return tmp_path


def run_cron(installed) -> str:
    command = cron_line().split(maxsplit=6)[6]
    command = command.replace(PROJECT, str(installed))
    command = command.replace("/etc/rpo_pipeline.env", str(installed / "env"))
    subprocess.run(["/bin/sh", "-c", command], check=False, env={"PATH": os.environ["PATH"]})
    return (installed / "data/refresh.log").read_text()


def test_the_cron_line_runs_the_refresh_with_the_variables_of_its_file(installed):
    assert run_cron(installed) == f"{COMMAND} as nightly\n"


def test_a_second_night_does_not_join_one_that_still_runs(installed):
    with subprocess.Popen(["flock", installed / "data", "cat"], stdin=subprocess.PIPE) as night:
        while (
            subprocess.run(["flock", "-n", installed / "data", "true"], check=False).returncode == 0
        ):
            pass
        assert run_cron(installed) == ""
        night.communicate()


def test_cron_job_and_workflow_run_at_three_every_night():
    (entry,) = workflow()["on"]["schedule"]
    schedules = {" ".join(cron_line().split()[:5]), cron_job()["spec"]["schedule"], entry["cron"]}
    (schedule,) = schedules
    nights = croniter(schedule, datetime(2026, 1, 1))
    assert nights.get_next(datetime) == datetime(2026, 1, 1, 3)
    assert nights.get_next(datetime) == datetime(2026, 1, 2, 3)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_finds_nothing_to_complain_about(installed, tmp_path):
    units = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", units)
    service = units / "rpo-refresh.service"
    text = service.read_text()
    assert "ProtectSystem=strict\n" in text
    assert f"ReadWritePaths={PROJECT}/data\n" in text
    assert f"ExecStart={PROJECT}/.venv/bin/{COMMAND}\n" in text
    service.write_text(text.replace(PROJECT, str(installed)))
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, units.iterdir())]
    completed = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout + completed.stderr) == (0, "")


def test_the_kubernetes_manifest_is_valid_to_the_last_field():
    for version in ("1.30", kubernetes_validate.latest_version()):
        for manifest in manifests().values():
            kubernetes_validate.validate(manifest, version, strict=True)
    job = cron_job()
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert " ".join(container["command"]) == COMMAND


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-workflows", "github-actions/refresh.yml"),
        ("compose-spec", "compose.yaml"),
    ],
)
def test_workflow_and_compose_file_follow_their_schemas(schema, file):
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        str(DEPLOY / file),
    ]
    completed = subprocess.run(check, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_the_workflow_keeps_the_data_between_nights_and_runs_the_refresh():
    job = workflow()["jobs"]["refresh"]
    checkout, *rest = job["steps"]
    assert checkout["with"]["clean"] == "false"
    assert [step["run"] for step in rest] == ["make setup", f".venv/bin/{COMMAND}"]
    assert workflow()["concurrency"]["cancel-in-progress"] == "false"


def test_the_pod_may_write_to_its_volumes_and_has_no_privilege():
    template = cron_job()["spec"]["jobTemplate"]["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    own = container["securityContext"]
    assert own["readOnlyRootFilesystem"]
    assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/app/data", "/cache", "/tmp"}
    policy = manifests()["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == template["metadata"]["labels"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress", "Egress"], [])
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 5000}


def test_no_manifest_lets_the_refresh_be_an_admin():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["refresh"]
    assert service["environment"]["MLFLOW_TRACKING_USERNAME"] == "refresh"
    for file in ("kubernetes/refresh.yaml", "cron/rpo-refresh", "systemd/rpo-refresh.service"):
        assert "USERNAME=admin" not in (DEPLOY / file).read_text()
