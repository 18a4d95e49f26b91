"""Reads the folders and registered models of all environments of the project."""

from dataclasses import dataclass
from pathlib import Path

from kedro.config import MissingConfigException

from rpo_pipeline.catalog import LOADER_ARGUMENTS, LayeredConfigLoader, environment_names
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.operations.lock import RUN_LOCK
from rpo_pipeline.params import TrackingParams


@dataclass(frozen=True)
class Environment:
    """An environment of ``conf/``."""

    name: str
    data: Path
    """Folder that its runs write to; it may contain those of other environments."""
    cache: Path
    """Folder of the shards that its runs read and write."""
    tracking: TrackingParams
    model_name: str
    """Registered model."""
    lock: Path
    """Lock file that each of its runs holds."""


def read_environments(project: Path) -> tuple[list[Environment], list[str]]:
    """Read the configuration of every environment of the folder with ``conf/``.

    The result is the environments that can be read, by name (without ``conf/base`` and
    ``conf/local``, which belong to each), and the faults of the others. A ConfigError says that no
    environment can be read.
    """
    found, faults = [], []
    for name in environment_names(project / "conf"):
        try:
            found.append(read_environment(project, name))
        except ConfigError as err:
            faults.append(f"environment {name}, whose configuration cannot be read: {err}")
    if not found:
        raise ConfigError(faults[0] if faults else f"there is no environment in {project / 'conf'}")
    return found, faults


def read_environment(project: Path, name: str) -> Environment:
    """Read the configuration of one environment, or raise a ConfigError where it is incomplete."""
    try:
        loader = open_configuration(project, name)
        places = loader["globals"]
        return Environment(
            name=name,
            data=project / places["data"],
            cache=project / places["cache"],
            tracking=loader.tracking,
            model_name=loader["parameters"]["promotion"]["model_name"],
            lock=project / loader["catalog"]["refresh_workspace"]["filepath"] / RUN_LOCK,
        )
    except (MissingConfigException, LookupError, TypeError) as err:
        raise ConfigError(f"conf/{name} lacks what every environment states: {err}") from err


def open_configuration(project: Path, env: str | None = None) -> LayeredConfigLoader:
    """Open the configuration of an environment, null for the default, as its runs do."""
    return LayeredConfigLoader(conf_source=str(project / "conf"), env=env, **LOADER_ARGUMENTS)
