"""What a run needs, checked one by one before it is needed: ``python -m rpo_pipeline doctor``."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from kedro.config import OmegaConfigLoader
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from rpo_pipeline import settings
from rpo_pipeline.errors import RpoError
from rpo_pipeline.params import PolicyParams, TrackingParams, validate_blocks, validate_tracking
from rpo_pipeline.secrets import hide, without_password

PYTHON = ">=3.11,<3.12"
LITTLE_GIGABYTES, TOO_LITTLE_GIGABYTES = 10, 1
SOURCES = "01_raw"
"""The folder of the data that a run only reads."""
HUB = "https://huggingface.co"
HUB_SECONDS = 5
# What the hook puts into the catalog of each run, and Kedro itself.
OF_EVERY_RUN = {"mlflow_run", "parameters"}

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    check: str
    state: State
    words: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.check:<10} {hide(self.words)}"


@dataclass(frozen=True)
class Configuration:
    """What the checks look at: one environment of the project."""

    project: Path
    places: Mapping[str, str]
    tracking: TrackingParams
    policy: PolicyParams
    model_name: str
    catalog: Mapping[str, Any]


def examine(project: Path, env: str) -> Iterator[Finding]:
    """Make every check.

    Args:
        project: Folder with ``conf/``.
        env: Environment of the configuration.

    Yields:
        One finding a check; without a configuration that can be read, those that need none.
    """
    yield _python()
    yield _versions(project)
    yield _accelerator()
    try:
        found = _configuration(project, env)
    except (RpoError, OSError, ValueError) as err:
        yield Finding("parameters", "failed", str(err))
        return
    yield Finding("parameters", "ok", f"those of conf/{env} can work")
    checks: tuple[Callable[[Configuration], Finding], ...] = (
        *(_disk, _tracking, _registry, _outbox, _hub, _catalog),
    )
    for check in checks:
        yield check(found)


def _configuration(project: Path, env: str) -> Configuration:
    arguments: dict[str, Any] = {**settings.CONFIG_LOADER_ARGS, "default_run_env": env}
    loader = OmegaConfigLoader(conf_source=str(project / "conf"), **arguments)
    parameters = loader["parameters"]
    validate_blocks(parameters)
    return Configuration(
        project=project,
        places=loader["globals"],
        tracking=validate_tracking(loader["mlflow"]),
        policy=PolicyParams.model_validate(parameters["policy"]),
        model_name=parameters["promotion"]["model_name"],
        catalog=loader["catalog"],
    )


def _python() -> Finding:
    running = platform.python_version()
    if running not in SpecifierSet(PYTHON):
        return Finding("python", "failed", f"{running} runs, {PYTHON} is needed")
    return Finding("python", "ok", running)


def _versions(project: Path) -> Finding:
    """What is installed, against what is needed and what was tested."""
    wrong = []
    for text in requires("rpo-pipeline") or []:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(needed.name)
        if installed is None or not needed.specifier.contains(installed, prereleases=True):
            wrong.append(f"{needed.name} {installed or 'is missing'}, needed {needed.specifier}")
    if wrong:
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
    from rpo_pipeline.registry.outage import answers
    from rpo_pipeline.registry.tracking import resolve_tracking_uri

    uri = resolve_tracking_uri(found.tracking.tracking_uri, found.project)
    if not answers(uri):
        return Finding("tracking", "failed", f"nobody answers at {without_password(uri)}")
    return Finding("tracking", "ok", without_password(uri))


def _registry(found: Configuration) -> Finding:
    from rpo_pipeline.registry.forgetting import registered_versions

    try:
        versions = registered_versions(found.tracking, found.project, found.model_name)
    except Exception as err:  # whatever the store raises: HTTP or SQL
        return Finding("registry", "failed", str(err).strip().splitlines()[0])
    if not versions:
        return Finding("registry", "ok", f"{found.model_name} has no version yet")
    return Finding("registry", "ok", f"{found.model_name}: {', '.join(versions)}")


def _outbox(found: Configuration) -> Finding:
    from rpo_pipeline.registry.tracking import OUTBOXES

    folder = found.project / found.places["data"] / OUTBOXES
    waiting = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if waiting:
        words = (
            f"MLflow runs {', '.join(waiting)} are at work, were killed, or wait to be sent: the "
            "next run settles them"
        )
        return Finding("outbox", "warning", words)
    return Finding("outbox", "ok", "nothing waits to be sent")


def _hub(found: Configuration) -> Finding:
    name = found.policy.name_or_path
    needed = name is not None and not Path(name).is_dir()
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Finding("hub", "ok", "offline: only what is in its local cache is used")
    import requests

    place = os.environ.get("HF_ENDPOINT", HUB)
    try:
        requests.head(place, timeout=HUB_SECONDS)
    except requests.RequestException:
        use = f"{name} must be in its local cache" if needed else "nothing of it is needed"
        return Finding("hub", "warning" if needed else "ok", f"{place} cannot be reached; {use}")
    return Finding("hub", "ok", place)


def _catalog(found: Configuration) -> Finding:
    """Datasets between nodes that live in memory: lost where each task is a process."""
    from rpo_pipeline.pipeline_registry import register_pipelines

    pipeline = register_pipelines()["__default__"]
    between = pipeline.all_outputs() & pipeline.all_inputs()
    kept = {name for name, entry in found.catalog.items() if "Memory" not in str(entry)}
    lost = sorted(name for name in between if name not in kept | OF_EVERY_RUN)
    if lost:
        words = f"not stored, so lost between tasks: {', '.join(lost)} (conf/*/catalog_*.yml)"
        return Finding("catalog", "failed", words)
    return Finding("catalog", "ok", f"all {len(between)} datasets between nodes are stored")
