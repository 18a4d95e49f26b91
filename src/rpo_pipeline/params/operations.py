"""Parameters of operations: limits of the caches, the tracking server."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from rpo_pipeline.params.base import Params
from rpo_pipeline.params.names import SQLITE, ExperimentName, TrackingUri, database_file


class CachesParams(Params):
    """Limits of the caches of log-probabilities, samples and labels, applied after every run."""

    max_gigabytes: float = Field(gt=0)
    """Size above which the least recently used entries are removed, except those of this run."""
    max_age_days: float = Field(gt=0)
    """Days after which an unused entry is removed."""


class TrackingParams(Params):
    """Where runs are logged."""

    tracking_uri: TrackingUri
    """Address of the MLflow server or database; relative sqlite paths start at the project."""
    experiment: ExperimentName
    """Name of the MLflow experiment."""
    on_outage: Literal["continue", "fail"]
    """What happens if the server stops answering during a run: continue and send everything when
    it answers again, or fail. At the start it must answer."""
    registry_wait_seconds: float = Field(ge=0)
    """Time that nodes wait for a model registry that does not answer."""

    def address(self, project: Path) -> str:
        """The ``tracking_uri``; a relative sqlite path is one from the project folder."""
        file = database_file(self.tracking_uri)
        return self.tracking_uri if file is None else f"{SQLITE}{project / file}"
