"""Writes an MLflow run: parameters, lineage, live metrics, artifacts."""

import hashlib
import json
import logging
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.utils.time import get_current_time_millis

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.params import SQLITE, TrackingParams, database_file
from rpo_pipeline.records import RunAddress
from rpo_pipeline.secrets import hide
from rpo_pipeline.storage import clear_abandoned, put_new, temporary_sibling
from rpo_pipeline.tracking.delivery import Delivery
from rpo_pipeline.tracking.opening import explaining, find_experiment, join_run
from rpo_pipeline.tracking.outage import require_answer
from rpo_pipeline.tracking.outbox import Outbox

logger = logging.getLogger(__name__)

MAX_PARAM_CHARACTERS, MAX_NAME_CHARACTERS = 6000, 250
MAX_PARAMS, MAX_METRICS = 100, 1000  # largest numbers in one request
POLL_SECONDS = 1.0
OUTBOXES = "mlflow_outbox"
"""Name of the folder of outboxes in the data folder."""
BAD_NAME = re.compile(r"[^\w./ -]", re.ASCII)
"""Characters that MLflow does not accept in the name of a parameter."""


class TrackedRun:
    """One MLflow run, addressed by its id: one that is joined, or a new one.

    While the server does not answer, calls are stored in an outbox, and sent in order when it
    answers again. Calls that an earlier run could not send are sent first, and runs that were
    killed are closed as ``KILLED``. A relative sqlite path starts at the project's folder.

    A ``RegistryError`` is raised if the server does not answer at the start, refuses the account or
    lacks the run; with ``on_outage: fail`` any method raises it later as well.
    """

    def __init__(
        self,
        tracking: TrackingParams,
        project_path: Path,
        outboxes: Path,
        *,
        run_id: str | None = None,
    ) -> None:
        self.tracking_uri = tracking.address(project_path)
        self._wait_seconds = tracking.registry_wait_seconds
        self.joined = run_id is not None
        self._finished = False
        with explaining(self.tracking_uri):
            require_answer(self.tracking_uri)
            _make_database(self.tracking_uri)
            self._client = MlflowClient(self.tracking_uri)
            if run_id is None:
                is_file = database_file(self.tracking_uri) is not None
                location = (project_path / "mlruns").as_uri() if is_file else None
                self.experiment_id = find_experiment(self._client, tracking.experiment, location)
                self.run_id: str = self._client.create_run(self.experiment_id).info.run_id
            else:
                self.experiment_id = join_run(self._client, run_id)
                self.run_id = run_id
        outbox = Outbox(outboxes / self.run_id)
        outbox.open()
        self._delivery = Delivery(self._client, outbox, on_outage=tracking.on_outage)
        self._delivery.settle_left_behind(outboxes)

    def describe(self) -> RunAddress:
        """Return what nodes need to write to this run."""
        return RunAddress(
            self.tracking_uri,
            experiment_id=self.experiment_id,
            run_id=self.run_id,
            registry_wait_seconds=self._wait_seconds,
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters under dotted names; values above MLflow's limit are cut with a warning."""
        flat = {
            BAD_NAME.sub("_", name)[:MAX_NAME_CHARACTERS]: hide(value)
            for name, value in flatten(params)
        }
        for name in [name for name, value in flat.items() if len(value) > MAX_PARAM_CHARACTERS]:
            logger.warning(
                "parameter %s is logged cut at %d characters", name, MAX_PARAM_CHARACTERS
            )
        entries = [(name, value[:MAX_PARAM_CHARACTERS]) for name, value in flat.items()]
        try:
            for start in range(0, len(entries), MAX_PARAMS):
                self._call("batch", params=entries[start : start + MAX_PARAMS])
        except RegistryError as err:
            if "Changing param values" not in str(err):
                raise
            raise RegistryError(
                f"run {self.run_id} was begun with other parameters, start a new one: {err}"
            ) from err

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._call("batch", tags=list(tags.items()))

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Log numbers, without those that are missing or not finite."""
        self.log_steps([{"step": 0, **metrics}])

    def log_steps(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Log the numbers of several steps, each ``{"step": 7, "train/loss": 0.5}``."""
        now = get_current_time_millis()
        entries = [entry for line in lines for entry in _finite(line, now, line["step"])]
        for start in range(0, len(entries), MAX_METRICS):
            self._call("batch", metrics=entries[start : start + MAX_METRICS])

    def log_dataset(self, name: str, file: Path, context: str) -> None:
        """Record a file as an input of the run, by its content hash."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:32]
        dataset = {
            "name": name,
            "digest": digest,
            "source_type": "local",
            "source": json.dumps({"uri": str(file)}),
            "profile": json.dumps({"num_bytes": file.stat().st_size}),
        }
        self._call("input", dataset=dataset, context=context)

    def log_nested(
        self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float | None]
    ) -> None:
        """Log a finished part of the run as a nested run."""
        self._call(
            "nested",
            name=name,
            params=[(key, str(value)) for key, value in params.items()],
            metrics=_finite(metrics, get_current_time_millis(), 0),
        )

    def log_artifact(self, file: Path) -> None:
        """Log a copy of a file as an artifact of the run."""
        self._call("artifact", file=str(file))

    def complete(self) -> None:
        """Close a successful run; a joined run stays open for the next process."""
        if self.joined:
            self.leave()
        else:
            self.finish("FINISHED")

    def leave(self) -> None:
        """Leave the run open for the next process that joins it."""
        self._finished = True
        self._delivery.close()

    def finish(self, status: str) -> None:
        """Close the run as ``FINISHED``, ``FAILED`` or ``KILLED``; the first status stays."""
        if self._finished:
            return
        self._finished = True
        self._call("finish", status=status, end_time=get_current_time_millis())
        self._delivery.close()

    def _call(self, call: str, **content: Any) -> None:  # noqa: ANN401 (what JSON can say)
        self._delivery.deliver({"run_id": self.run_id, "call": call, **content})


class MetricsFollower:
    """Streams a growing ``metrics.jsonl`` to a run while a node writes it.

    A file of an earlier run is not sent: the file counts only after its modification time changes.
    """

    def __init__(self, run: TrackedRun, file: Path) -> None:
        self._run = run
        self._file = file
        self._untouched = self._modified()
        self._offset = 0
        self._stopped = threading.Event()
        self._error: RegistryError | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"follow {file}")
        self._thread.start()

    def stop(self) -> None:
        """Send the remaining lines and stop; an earlier error of sending is raised now."""
        self._stopped.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._send()

    def _follow(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self._send()
            except RegistryError as err:  # `stop` raises it in its own thread
                self._error = err
                return

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


def _finite(
    numbers: Mapping[str, float | None], now: int, step: int
) -> list[tuple[str, float, int, int]]:
    return [
        (name, float(value), now, step)
        for name, value in numbers.items()
        if name != "step" and value is not None and math.isfinite(value)
    ]


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and printed values of nested parameters; lists are JSON."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _make_database(tracking_uri: str) -> None:
    """Create a new SQLite database atomically, because MLflow cannot use an incomplete one."""
    database = database_file(tracking_uri)
    if database is None or database.exists():
        return
    clear_abandoned(database.parent, deep=False)
    prepared = temporary_sibling(database)
    try:
        MlflowClient(f"{SQLITE}{prepared}").search_experiments(max_results=1)
        put_new(prepared, database)
    except FileExistsError:  # another run was faster
        pass
    finally:
        prepared.unlink(missing_ok=True)
