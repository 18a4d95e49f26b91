"""An MLflow run as the project writes it: parameters, lineage, live metrics, artifacts."""

import hashlib
import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.params import TrackingParams

logger = logging.getLogger(__name__)

MAX_PARAM_CHARACTERS = 6000
MAX_PARAMS, MAX_METRICS = 100, 1000  # of one request
POLL_SECONDS = 1.0
JOINED_RUN = "RPO_MLFLOW_RUN_ID"
"""Environment variable with the run that a scheduler opened for several ``kedro run``."""


class TrackedRun:
    """One MLflow run, addressed by its id.

    Args:
        tracking: Server and experiment.
        project_path: Where a relative database starts.
        run_id: An open run to join; None starts one.

    Raises:
        RegistryError: If the server does not answer, refuses the account or lacks the run.
    """

    def __init__(
        self, tracking: TrackingParams, project_path: Path, *, run_id: str | None = None
    ) -> None:
        self.tracking_uri = resolve_tracking_uri(tracking.tracking_uri, project_path)
        self.joined = run_id is not None
        self._finished = False
        try:
            self._client = MlflowClient(self.tracking_uri)
            if run_id is None:
                self.experiment_id = self._experiment(tracking.experiment, project_path)
                self.run_id: str = self._client.create_run(self.experiment_id).info.run_id
            else:
                self.experiment_id = self._client.get_run(run_id).info.experiment_id
                self.run_id = run_id
                # An attempt that failed closed it; this one goes on.
                self._client.update_run(run_id, "RUNNING")
        except (
            Exception
        ) as err:  # whatever the store raises: an HTTP, SQL or operating system error
            raise RegistryError(_explain(self.tracking_uri, err)) from err

    def describe(self) -> dict[str, str]:
        """What nodes need to write to this run."""
        return {
            "tracking_uri": self.tracking_uri,
            "experiment_id": self.experiment_id,
            "run_id": self.run_id,
        }

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters under dotted names; a value over MLflow's limit is cut, with a warning."""
        flat = dict(flatten(params))
        for name in [name for name, value in flat.items() if len(value) > MAX_PARAM_CHARACTERS]:
            logger.warning(
                "parameter %s is logged cut at %d characters", name, MAX_PARAM_CHARACTERS
            )
        entries = [Param(name, value[:MAX_PARAM_CHARACTERS]) for name, value in flat.items()]
        try:
            for start in range(0, len(entries), MAX_PARAMS):
                self._client.log_batch(self.run_id, params=entries[start : start + MAX_PARAMS])
        except MlflowException as err:
            if err.error_code != "INVALID_PARAMETER_VALUE" or not self.joined:
                raise
            raise RegistryError(
                f"run {self.run_id} was begun with other parameters, start a new one: {err}"
            ) from err

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Log numbers; those that are missing or not finite are left out."""
        self.log_steps([{"step": 0, **metrics}])

    def log_steps(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Log the numbers of several steps, each ``{"step": 7, "train/loss": 0.5}``."""
        now = get_current_time_millis()
        entries = [
            Metric(name, float(value), now, line["step"])
            for line in lines
            for name, value in line.items()
            if name != "step" and value is not None and math.isfinite(value)
        ]
        for start in range(0, len(entries), MAX_METRICS):
            self._client.log_batch(self.run_id, metrics=entries[start : start + MAX_METRICS])

    def log_dataset(self, name: str, file: Path, context: str) -> None:
        """Record a file as an input of the run, by its content hash."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:32]
        dataset = Dataset(
            name=name,
            digest=digest,
            source_type="local",
            source=json.dumps({"uri": str(file)}),
            profile=json.dumps({"num_bytes": file.stat().st_size}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_nested(
        self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float | None]
    ) -> None:
        """Log a finished part of the run as a run of its own below it."""
        tags = {"mlflow.parentRunId": self.run_id, "mlflow.runName": name}
        run_id = self._client.create_run(self.experiment_id, tags=tags).info.run_id
        now = get_current_time_millis()
        self._client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in params.items()],
            metrics=[
                Metric(key, float(value), now, 0)
                for key, value in metrics.items()
                if value is not None and math.isfinite(value)
            ],
        )
        self._client.set_terminated(run_id)

    def log_artifact(self, file: Path) -> None:
        """Keep a copy of a file with the run."""
        self._client.log_artifact(self.run_id, str(file))

    def complete(self) -> None:
        """Close a run that went well; one that was joined is left to those who join it next."""
        if self.joined:
            self._finished = True
        else:
            self.finish("FINISHED")

    def finish(self, status: str) -> None:
        """Close the run as ``FINISHED``, ``FAILED`` or ``KILLED``; the first status stays."""
        if not self._finished:
            self._client.set_terminated(self.run_id, status)
            self._finished = True

    def _experiment(self, name: str, project_path: Path) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        local = self.tracking_uri.startswith("sqlite:")
        location = (project_path / "mlruns").as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=location))


class MetricsFollower:
    """Streams a growing ``metrics.jsonl`` to a run while a node writes it.

    A file left by an earlier run is not sent: the
    writer starts it anew, which shows in its time of modification.
    """

    def __init__(self, run: TrackedRun, file: Path) -> None:
        self._run = run
        self._file = file
        self._untouched = self._modified()
        self._offset = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"follow {file}")
        self._thread.start()

    def stop(self) -> None:
        """Send what is left and end."""
        self._stopped.set()
        self._thread.join()
        self._send()

    def _follow(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            self._send()

    def _send(self) -> None:
        if self._modified() == self._untouched:
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            lines = file.readlines()
        complete = [line for line in lines if line.endswith(b"\n")]
        self._offset += sum(map(len, complete))
        self._run.log_steps([json.loads(line) for line in complete])

    def _modified(self) -> int | None:
        return self._file.stat().st_mtime_ns if self._file.is_file() else None


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and printed values of nested parameters; lists are JSON."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def resolve_tracking_uri(tracking_uri: str, project_path: Path) -> str:
    """URI of a tracking server; a relative sqlite path starts at the project folder."""
    scheme = "sqlite:///"
    if not tracking_uri.startswith(scheme):
        return tracking_uri
    return f"{scheme}{project_path / tracking_uri.removeprefix(scheme)}"


def _explain(tracking_uri: str, error: Exception) -> str:
    code = error.error_code if isinstance(error, MlflowException) else None
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return (
            f"the tracking server at {tracking_uri} refuses this account: {error} (environment "
            "variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
        )
    if code == "RESOURCE_DOES_NOT_EXIST":
        return f"there is nothing to join: {error} (environment variable {JOINED_RUN})"
    return (
        f"the tracking server at {tracking_uri} does not answer: {error} "
        "(conf/base/mlflow.yml, or the environment variable MLFLOW_TRACKING_URI)"
    )
