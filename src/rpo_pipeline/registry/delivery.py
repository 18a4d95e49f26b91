"""Getting what a run logs to its tracking server, at once or once the server is back."""

import logging
import threading
import time
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.registry.outage import is_refusal, require_answer
from rpo_pipeline.registry.outbox import Entry, Outbox
from rpo_pipeline.secrets import without_password

logger = logging.getLogger(__name__)

RETRY_SECONDS = 10.0


class Delivery:
    """Delivers the calls of one run in order.

    Args:
        client: Of the tracking server.
        outbox: Where calls wait while it is away.
        on_outage: ``continue`` or ``fail``, once the server stops answering.
    """

    def __init__(
        self, client: MlflowClient, outbox: Outbox, *, on_outage: Literal["continue", "fail"]
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._on_outage = on_outage
        self._uri = str(client.tracking_uri)
        self._shown_uri = without_password(self._uri)
        self._lock = threading.Lock()  # nodes, and the thread that follows their metrics
        self._tried_at = 0.0

    def deliver(self, entry: Entry) -> None:
        """Deliver a call, or keep it for when the server is back.

        Args:
            entry: The call, with the ``run_id`` it belongs to.

        Raises:
            RegistryError: If the server stopped answering and that is to end the run.
            MlflowException: If it refuses the call.
        """
        with self._lock:
            if not self._outbox:
                try:
                    self._make(entry)
                except Exception as err:  # whatever the store raises: HTTP, SQL, S3
                    self._take(err)
                else:
                    return
            self._outbox.add(entry)
            if time.monotonic() - self._tried_at >= RETRY_SECONDS:
                self._send()

    def close(self) -> None:
        """Try for the last time, and say what could not be sent."""
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
        """Send what earlier runs could not, and close those that were killed.

        What is refused now as well stays, and is said.
        """
        for folder in sorted(outboxes.iterdir()) if outboxes.is_dir() else ():
            outbox = Outbox.left_behind(folder)
            if outbox is None:
                continue
            try:
                if outbox:
                    outbox.send(self._make)
                    logger.info("sent what MLflow run %s had to leave behind", folder.name)
                self._close_killed(folder.name)
            except Exception as err:  # as above
                logger.warning(
                    "what MLflow run %s left in %s cannot be sent: %s", folder.name, folder, err
                )
            finally:
                outbox.release()

    def _close_killed(self, run_id: str) -> None:
        if self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, "KILLED")
            logger.warning("MLflow run %s ended without a word, and is KILLED now", run_id)

    def _take(self, error: Exception) -> None:
        if is_refusal(error):
            raise error
        reason = str(error).replace(self._uri, self._shown_uri)
        if self._on_outage == "fail":
            raise RegistryError(
                f"the tracking server at {self._shown_uri} stopped answering: {reason} "
                "(conf/*/mlflow.yml: on_outage is `fail`)"
            ) from error
        logger.warning(
            "the tracking server at %s stopped answering: %s; the run goes on, and what it logs "
            "waits in %s",
            self._shown_uri,
            reason,
            self._outbox.folder,
        )
        self._tried_at = time.monotonic()

    def _send(self) -> None:
        waiting, self._tried_at = len(self._outbox), time.monotonic()
        try:
            self._outbox.send(self._make)
        except Exception as err:  # as above; a refusal of what comes late must not end the run
            logger.debug("%d calls still wait: %s", len(self._outbox), err)
        else:
            logger.info("%s answers again: %d calls sent", self._shown_uri, waiting)

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
                parent = client.get_run(run_id)
                of_parent = {"mlflow.parentRunId": run_id, "mlflow.runName": entry["name"]}
                nested = client.create_run(parent.info.experiment_id, tags=of_parent).info.run_id
                self._log_batch(nested, entry)
                client.set_terminated(nested)
            case "finish":
                client.set_terminated(run_id, entry["status"], entry["end_time"])

    def _log_batch(self, run_id: str, entry: Entry) -> None:
        self._client.log_batch(
            run_id,
            metrics=[Metric(*one) for one in entry.get("metrics", ())],
            params=[Param(*one) for one in entry.get("params", ())],
            tags=[RunTag(*one) for one in entry.get("tags", ())],
        )
