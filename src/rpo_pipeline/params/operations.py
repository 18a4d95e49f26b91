"""What a run needs beside its work: limits of the cache, a tracking server."""

from typing import Literal

from pydantic import Field

from rpo_pipeline.params.base import Params
from rpo_pipeline.params.names import ExperimentName, TrackingUri


class CachesParams(Params):
    """Limits of the folder of log-probabilities, samples and labels, kept after every run."""

    max_gigabytes: float = Field(gt=0)
    """Above it, what was not asked for in the longest time goes; never what this run uses."""
    max_age_days: float = Field(gt=0)
    """What nobody asked for in as many days goes."""


class TrackingParams(Params):
    """Where runs are logged."""

    tracking_uri: TrackingUri
    """Of the MLflow server or database; a relative sqlite path starts at the project folder."""
    experiment: ExperimentName
    """Name of the MLflow experiment."""
    on_outage: Literal["continue", "fail"]
    """When the server leaves in the middle of a run: go on and send what was logged once it is
    back, or stop. At the start it must answer."""
    registry_wait_seconds: float = Field(ge=0)
    """How long the nodes that need the model registry wait for one that is away."""
