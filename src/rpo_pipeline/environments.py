"""Where every environment of the project keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader

from rpo_pipeline import settings
from rpo_pipeline.params import TrackingParams, validate_tracking
from rpo_pipeline.refresh.lock import RUN_LOCK


@dataclass(frozen=True)
class Environment:
    """An environment of ``conf/``."""

    name: str
    data: Path
    """Folder of what its runs write; another environment's may lie in it."""
    cache: Path
    """Folder of the shards that its runs read and write."""
    tracking: TrackingParams
    model_name: str
    """Its registered model."""
    lock: Path
    """What each of its runs holds."""


def read_environments(project: Path) -> list[Environment]:
    """Read the configuration of every environment.

    Args:
        project: Folder with ``conf/``.

    Returns:
        ``base`` and the others, by name.
    """
    names = [path.name for path in sorted((project / "conf").iterdir()) if path.is_dir()]
    return [read_environment(project, name) for name in names]


def read_environment(project: Path, name: str) -> Environment:
    """Read the configuration of one environment."""
    arguments: dict[str, Any] = {**settings.CONFIG_LOADER_ARGS, "default_run_env": name}
    loader = OmegaConfigLoader(conf_source=str(project / "conf"), **arguments)
    places = loader["globals"]
    return Environment(
        name=name,
        data=project / places["data"],
        cache=project / places["cache"],
        tracking=validate_tracking(loader["mlflow"]),
        model_name=loader["parameters"]["promotion"]["model_name"],
        lock=project / loader["catalog"]["refresh_workspace"]["filepath"] / RUN_LOCK,
    )
