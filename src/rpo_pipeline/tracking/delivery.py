"""Delivers what a run logs to its tracking server, at once or when the server answers again."""

import logging
import threading
import time
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.secrets import without_password
from rpo_pipeline.storage import value_digest
from rpo_pipeline.tracking.outage import describe, is_of_store, is_refusal, require_answer
from rpo_pipeline.tracking.outbox import Entry, Outbox

logger = logging.getLogger(__name__)

RETRY_SECONDS, RETRY_FACTOR = 10.0, 20
"""Shortest pause after a failed attempt, and the pause as a multiple of the attempt's duration.
Failing attempts thus take at most a twentieth of a run's time."""
CALL_TAG = "rpo.call"
"""Tag of a nested run with the hash of the call that created it, by which the call finds it."""


class Delivery:
    """Delivers the calls of one run in order; the outbox keeps them while no server answers.

    ``on_outage`` says whether to ``continue`` or ``fail`` when the server stops answering.
    """

    def __init__(
        self, client: MlflowClient, outbox: Outbox, *, on_outage: Literal["continue", "fail"]
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._on_outage = on_outage
        self._uri = str(client.tracking_uri)
        self._shown_uri = without_password(self._uri)
        self._lock = threading.Lock()  # for nodes and the thread that follows their metrics
        self._next_try = 0.0

    def deliver(self, entry: Entry) -> None:
        """Deliver a call of the run whose ``run_id`` it holds, or store it until that is possible.

        A ``RegistryError`` is raised if the server refuses the call, or if it does not answer and
        ``on_outage`` is ``fail``.
        """
        with self._lock:
            if not self._outbox:
                started = time.monotonic()
                try:
                    self._make(entry)
                except Exception as err:  # stores raise errors of HTTP, SQL, S3
                    self._take(err)
                    self._pause(started)
                else:
                    return
            self._outbox.add(entry)
            if time.monotonic() >= self._next_try:
                self._send()

    def close(self) -> None:
        """Send for the last time, and log what could not be sent."""
        with self._lock:
            if self._outbox:
                self._send()
            if self._outbox:
                logger.warning(
                    "%d calls could not be sent to %s: they wait in %s, and the next run sends "
                    "them",
                    len(self._outbox),
                    self._shown_uri,
                    self._outbox.folder,
                )
            self._outbox.release()

    def settle_left_behind(self, outboxes: Path) -> None:
        """Send the calls that earlier runs could not, and close runs that were killed.

        Calls that cannot be sent now either stay, with a warning.
        """
        for folder in sorted(outboxes.iterdir()) if outboxes.is_dir() else ():
            try:
                outbox = Outbox.left_behind(folder)
            except OSError as err:  # a folder of another user, or a damaged disk
                logger.warning("%s cannot be read, and is left as it is: %s", folder, err)
                continue
            if outbox is None:
                continue
            try:
                if outbox and outbox.send(self._make, refuses=_is_verdict):
                    logger.info("sent what MLflow run %s had to leave behind", folder.name)
                self._close_killed(folder.name)
            except Exception as err:  # as above
                logger.warning(
                    "what MLflow run %s left in %s cannot be sent now: %s",
                    *(folder.name, folder, describe(err, self._uri)),
                )
            finally:
                outbox.release()

    def _close_killed(self, run_id: str) -> None:
        try:
            info = self._client.get_run(run_id).info
        except MlflowException as err:
            if is_refusal(err):  # there is no such run, so nothing must be closed
                return
            raise
        if info.status == "RUNNING" and info.lifecycle_stage == "active":
            self._client.set_terminated(run_id, "KILLED")
            logger.warning("MLflow run %s was not closed by its process, and is KILLED now", run_id)

    def _take(self, error: Exception) -> None:
        reason = describe(error, self._uri)
        if is_refusal(error):
            raise RegistryError(
                f"the tracking server at {self._shown_uri} refuses what the run logs: {reason}"
            ) from error
        if not is_of_store(error):
            raise error
        if self._on_outage == "fail":
            raise RegistryError(
                f"the tracking server at {self._shown_uri} stopped answering: {reason} "
                "(conf/*/mlflow.yml: on_outage is `fail`)"
            ) from error
        logger.warning(
            "the tracking server at %s does not take what is logged: %s; the run goes on, and what "
            "it logs waits in %s",
            self._shown_uri,
            reason,
            self._outbox.folder,
        )

    def _send(self) -> None:
        started = time.monotonic()
        try:
            sent = self._outbox.send(self._make, refuses=_is_verdict)
        except Exception as err:  # as above
            logger.debug("%d calls still wait: %s", len(self._outbox), err)
        else:
            logger.info("%s answers again: %d calls sent", self._shown_uri, sent)
        self._pause(started)

    def _pause(self, started: float) -> None:
        now = time.monotonic()
        self._next_try = now + max(RETRY_SECONDS, RETRY_FACTOR * (now - started))

    def _make(self, entry: Entry) -> None:
        """Make a call to the server."""
        require_answer(self._uri)
        client, run_id = self._client, entry["run_id"]
        match entry["call"]:
            case "batch":
                self._log_batch(run_id, entry)
            case "input":
                tags = [InputTag("mlflow.data.context", entry["context"])]
                client.log_inputs(run_id, [DatasetInput(Dataset(**entry["dataset"]), tags)])
            case "artifact" if not Path(entry["file"]).is_file():
                logger.warning("%s is gone, so it is not kept with its run", entry["file"])
            case "artifact":
                client.log_artifact(run_id, entry["file"])
            case "nested":
                nested = self._nested(entry)
                self._log_batch(nested, entry)
                client.set_terminated(nested)
            case "finish":
                client.set_terminated(run_id, entry["status"], entry["end_time"])
            case other:
                raise ValueError(f"there is no call {other!r}")

    def _nested(self, entry: Entry) -> str:
        """Create the nested run of a call, or find the one that a killed delivery created."""
        client, run_id, call = self._client, entry["run_id"], value_digest(entry)
        experiment_id = client.get_run(run_id).info.experiment_id
        found = client.search_runs([experiment_id], f"tags.`{CALL_TAG}` = '{call}'", max_results=1)
        tags = {"mlflow.parentRunId": run_id, "mlflow.runName": entry["name"], CALL_TAG: call}
        nested = found[0] if found else client.create_run(experiment_id, tags=tags)
        return str(nested.info.run_id)

    def _log_batch(self, run_id: str, entry: Entry) -> None:
        self._client.log_batch(
            run_id,
            metrics=[Metric(*one) for one in entry.get("metrics", ())],
            params=[Param(*one) for one in entry.get("params", ())],
            tags=[RunTag(*one) for one in entry.get("tags", ())],
        )


def _is_verdict(error: Exception) -> bool:
    """Tell whether an error is caused by the call, so that repeating the call is of no use."""
    return is_refusal(error) or not is_of_store(error)
