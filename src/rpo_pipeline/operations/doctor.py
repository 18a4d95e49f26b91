"""Checks everything that a run needs: ``kedro doctor``."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from rpo_pipeline.errors import RpoError
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.params import (
    EXTRAS,
    Need,
    PolicyParams,
    TrackingParams,
    block_needs,
    catalog_needs,
    tracking_needs,
    validate_blocks,
    validate_catalog,
    variable,
)
from rpo_pipeline.records import RunAddress
from rpo_pipeline.secrets import hide, without_password

PROJECT, PYTHON = "rpo-pipeline", ">=3.11"
LITTLE_GIGABYTES, TOO_LITTLE_GIGABYTES = 10, 1
SOURCES = "01_raw"
"""Folder, in the data folder, that a run only reads."""
HUB = "https://huggingface.co"
HUB_SECONDS = 5
# Datasets that our hook and Kedro add to the catalog of each run.
OF_EVERY_RUN = {"mlflow_run", "parameters"}

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    state: State
    words: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.check:<10} {hide(self.words)}"


@dataclass(frozen=True)
class Configuration:
    """Configuration of one environment, which the checks examine."""

    project: Path
    places: Mapping[str, str]
    tracking: TrackingParams
    policy: PolicyParams
    model_name: str
    catalog: Mapping[str, Any]
    needs: Sequence[Need]
    """Optional packages that it needs."""


def examine(project: Path, env: str) -> Iterator[Finding]:
    """Run every check, or only those without configuration if it cannot be read."""
    yield _python()
    yield _versions(project)
    yield _accelerator()
    try:
        found = _configuration(project, env)
    except (RpoError, OSError, ValueError) as err:
        yield Finding("parameters", "failed", str(err))
        yield from (_extra(name, None) for name in EXTRAS)
        return
    yield Finding("parameters", "ok", f"those of conf/{env} can work")
    yield from (_extra(name, found.needs) for name in EXTRAS)
    for check in (_disk, _tracking, _registry, _outbox, _hub, _catalog):
        yield check(found)


def _configuration(project: Path, env: str) -> Configuration:
    loader = open_configuration(project, env)
    parameters = loader["parameters"]
    blocks = validate_blocks(parameters, env)
    policy = PolicyParams.model_validate(parameters["policy"])
    if policy.from_config:
        from rpo_pipeline.engine import check_architecture

        check_architecture(policy.from_config)
    tracking, catalog = loader.tracking, loader["catalog"]
    validate_catalog(catalog)
    needs = [*block_needs(blocks), *catalog_needs(catalog), *tracking_needs(tracking.tracking_uri)]
    return Configuration(
        project=project,
        places=loader["globals"],
        tracking=tracking,
        policy=policy,
        model_name=parameters["promotion"]["model_name"],
        catalog=catalog,
        needs=needs,
    )


def _python() -> Finding:
    running = platform.python_version()
    if running not in SpecifierSet(PYTHON):
        return Finding("python", "failed", f"{running} runs, {PYTHON} is needed")
    return Finding("python", "ok", running)


def _versions(project: Path) -> Finding:
    """Compare installed versions with required and with tested ones."""
    if _installed(PROJECT) is None:
        words = f"{PROJECT} is on the path and not installed: nobody knows which versions it needs"
        return Finding("versions", "warning", words)
    if wrong := _not_met(extra=""):
        return Finding("versions", "failed", f"{'; '.join(wrong)} (`make setup`)")
    file = project / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    pinned = dict(line.split("==") for line in lines if "==" in line and line[0] != "#")
    found = {name: _installed(name) for name in pinned}
    other = [
        f"{name} {installed} instead of {pinned[name]}"
        for name, installed in found.items()
        if installed and Version(installed).public != pinned[name]
    ]
    if other:
        listed = ", ".join(other[:5]) + (" ..." if len(other) > 5 else "")
        return Finding("versions", "warning", f"{len(other)} were not tested: {listed}")
    return Finding("versions", "ok", "those of constraints.txt")


def _extra(extra: str, needs: Sequence[Need] | None) -> Finding:
    """Check whether an extra is installed, and whether the configuration needs it."""
    places = sorted({need.place for need in needs or () if need.extra == extra})
    use = f"needed by {', '.join(places)}" if places else "not needed by this configuration"
    if needs is None:
        use = "whether it is needed is not known without parameters that can work"
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        return Finding(extra, "ok", f"extra, not installed ({', '.join(missing)}); {use}")
    if wrong := _not_met(extra):
        return Finding(extra, "warning", f"extra, installed with {'; '.join(wrong)}; {use}")
    return Finding(extra, "ok", f"extra, installed; {use}")


def _not_met(extra: str) -> list[str]:
    """List requirements of the project, or of one of its extras, that are not met."""
    texts = requires(PROJECT) if _installed(PROJECT) else None
    wrong = []
    for needed in map(Requirement, texts or []):
        marker = needed.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always == bool(extra) or not (always or (marker and marker.evaluate({"extra": extra}))):
            continue
        installed = _installed(needed.name)
        if installed is None or not needed.specifier.contains(installed, prereleases=True):
            wrong.append(f"{needed.name} {installed or 'is missing'}, needed {needed.specifier}")
    return wrong


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _accelerator() -> Finding:
    import torch

    if not torch.accelerator.is_available():
        return Finding("gpu", "ok", f"none: the CPU is used, {os.cpu_count()} cores")
    count = torch.accelerator.device_count()
    return Finding("gpu", "ok", f"{count} of type {torch.accelerator.current_accelerator()}")


def _disk(found: Configuration) -> Finding:
    data, cache = (found.project / found.places[name] for name in ("data", "cache"))
    places = [
        next(place for place in (folder, *folder.parents) if place.is_dir())
        for folder in (data, cache)
    ]
    free = shutil.disk_usage(places[0]).free / 1e9
    words = f"{free:.1f} GB free for {data}"
    for folder in [*places, *(path for path in sorted(places[0].iterdir()) if path.is_dir())]:
        if not os.access(folder, os.W_OK) and folder.name != SOURCES:
            return Finding("disk", "failed", f"{folder} cannot be written to")
    if free < TOO_LITTLE_GIGABYTES:
        return Finding("disk", "failed", words)
    return Finding("disk", "warning" if free < LITTLE_GIGABYTES else "ok", words)


def _tracking(found: Configuration) -> Finding:
    from rpo_pipeline.tracking import check_experiment, find_fault

    uri = found.tracking.address(found.project)
    shown = without_password(uri)
    if fault := find_fault(uri):
        return Finding("tracking", "failed", f"{shown}: {fault}")
    try:
        check_experiment(uri, found.tracking.experiment)
    except RpoError as err:
        return Finding("tracking", "failed", str(err))
    return Finding("tracking", "ok", shown)


def _registry(found: Configuration) -> Finding:
    from rpo_pipeline.registry import registered_versions, require_champion

    uri = found.tracking.address(found.project)
    try:
        versions = registered_versions(found.tracking, found.project, found.model_name)
        if not versions:
            return Finding("registry", "ok", f"{found.model_name} has no version yet")
        require_champion(RunAddress(uri), found.model_name)
    except Exception as err:  # stores raise errors of HTTP or SQL
        return Finding("registry", "failed", str(err).strip().splitlines()[0])
    return Finding("registry", "ok", f"{found.model_name}: {', '.join(versions)}")


def _outbox(found: Configuration) -> Finding:
    from rpo_pipeline.tracking import BROKEN, OUTBOXES

    folder = found.project / found.places["data"] / OUTBOXES
    kept = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    aside = [name for name in kept if name.endswith(BROKEN)]
    if not kept:
        return Finding("outbox", "ok", "nothing waits to be sent")
    if waiting := [name for name in kept if name not in aside]:
        words = (
            f"MLflow runs {', '.join(waiting)} are at work, were killed, or wait to be sent: the "
            "next run settles them"
        )
    else:
        words = f"{', '.join(aside)} in {folder} can never be sent: look at them, and remove them"
    return Finding("outbox", "warning", words)


def _hub(found: Configuration) -> Finding:
    name = found.policy.name_or_path
    needed = name is not None and not Path(name).is_dir()
    if variable("HF_HUB_OFFLINE") == "1":
        return Finding("hub", "ok", "offline: only what is in its local cache is used")
    import requests

    place = variable("HF_ENDPOINT", HUB)
    try:
        requests.head(place, timeout=HUB_SECONDS)
    except requests.RequestException:
        use = f"{name} must be in its local cache" if needed else "nothing of it is needed"
        return Finding("hub", "warning" if needed else "ok", f"{place} cannot be reached; {use}")
    return Finding("hub", "ok", place)


def _catalog(found: Configuration) -> Finding:
    """Check that no dataset between nodes is in memory, where other processes cannot read it."""
    from kedro.framework.project import configure_project, pipelines

    configure_project("rpo_pipeline")
    pipeline = pipelines["__default__"]
    between = pipeline.all_outputs() & pipeline.all_inputs()
    kept = {name for name, entry in found.catalog.items() if "Memory" not in str(entry)}
    lost = sorted(name for name in between if name not in kept | OF_EVERY_RUN)
    if lost:
        words = f"not stored, so lost between tasks: {', '.join(lost)} (conf/*/catalog_*.yml)"
        return Finding("catalog", "failed", words)
    return Finding("catalog", "ok", f"all {len(between)} datasets between nodes are stored")
