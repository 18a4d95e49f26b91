"""Detects servers that do not answer like MLflow, waits for them, and describes their faults."""

import errno
import functools
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests import Response
from requests.exceptions import JSONDecodeError, RequestException

from rpo_pipeline.errors import RegistryError, RpoError
from rpo_pipeline.params import database_file
from rpo_pipeline.records import RunAddress
from rpo_pipeline.secrets import without_password

logger = logging.getLogger(__name__)

CONNECT_SECONDS, ANSWER_SECONDS, POLL_SECONDS = 5, 15, 2.0
"""Time limits to reach a server and for its answer (the first may wait for the database), and the
pause between checks."""
OK, REDIRECT, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 200, 300, 401, 403, 404
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500
# A request that every MLflow server answers from its database, which /health does not use.
PROBE = "/api/2.0/mlflow/experiments/search?max_results=1"
HEADER = b"SQLite format 3\0"
VERSION = re.compile(r"\d+\.\d+.*")
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
CLIENTS = ("sqlalchemy", "botocore", "boto3", "azure", "google")
"""Packages of databases and artifact stores, whose errors MLflow does not convert."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk, which ``cli.explain`` describes."""
ACCOUNT = "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
ADDRESS = "conf/base/mlflow.yml, or the environment variable MLFLOW_TRACKING_URI"
HOW_TO_GO_ON = (
    "Nothing is lost: what was made stays in the data folder, and once the registry answers, the "
    "same `kedro run` goes on from there without training again"
)

Function = TypeVar("Function", bound=Callable[..., Any])


def find_fault(tracking_uri: str) -> str | None:
    """Describe why a server cannot be used now, within seconds; None if it answers like MLflow.

    A server that refuses the account counts as answering. Of a database server only the port is
    checked.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return _find_fault_of_database(tracking_uri)
    try:
        response = _ask(tracking_uri, PROBE)
        # MLflow also answers with an empty object if this account may see no experiment.
        if response.status_code == OK and response.json() == {}:
            version = _ask(tracking_uri, "/version").text.strip()
            if not VERSION.fullmatch(version):
                return "it answers with an empty object, and names no version of MLflow"
    except JSONDecodeError:
        kind = response.headers.get("Content-Type", "nothing that is known")
        return f"it answers with {kind}, as a login page does, where MLflow answers with JSON"
    except (MlflowException, RequestException):
        return f"nobody answers there within {ANSWER_SECONDS} s"
    return _find_fault_of_status(response)


def require_answer(tracking_uri: str) -> None:
    """Raise a ``ConnectionError`` if the server does not answer like MLflow."""
    fault = find_fault(tracking_uri)
    if fault:
        raise ConnectionError(fault)


def is_refusal(error: Exception) -> bool:
    """Tell whether a server refused a request for good, so that a repetition is of no use.

    A refused account does not count, because an expired token may be renewed.
    """
    if not isinstance(error, MlflowException):
        return False
    status = error.get_http_status_code()
    passing = (UNAUTHORIZED, FORBIDDEN, TOO_MANY_REQUESTS)
    return bool(status < SERVER_ERROR and status not in passing)


def describe(error: object, tracking_uri: str) -> str:
    """Write an error on one line, without the password of the address."""
    said = str(error).replace(tracking_uri, without_password(tracking_uri))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # SQLAlchemy appends the statement and a link to its messages.
    return " ".join(
        line for line in lines if not line.startswith(("[SQL:", "[parameters:", "(Back"))
    )


def needs_registry(function: Function) -> Function:
    """Make a function, whose first argument is the run, wait for a registry that does not answer.

    It waits up to ``registry_wait_seconds`` of the run. If the registry still does not answer,
    stops answering, refuses or has no space, a ``RegistryError`` tells how to continue.
    """

    @functools.wraps(function)
    def reaching(run: RunAddress, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        uri = run.tracking_uri
        _wait(uri, run.registry_wait_seconds)
        try:
            return function(run, *args, **kwargs)
        except RpoError:
            raise
        except Exception as err:  # whatever the stores raise: HTTP, SQL, S3, the file system
            if is_refusal(err):
                raise RegistryError(
                    f"the model registry at {without_password(uri)} refuses a request: "
                    f"{describe(err, uri)} (conf/*/parameters_promotion.yml: "
                    "promotion.model_name; conf/*/mlflow.yml: tracking_uri). What was made stays "
                    "in the data folder"
                ) from err
            if is_of_store(err) and getattr(err, "errno", None) not in FULL:
                raise _unreachable(uri, err) from err
            raise

    return cast(Function, reaching)


def is_of_store(error: Exception) -> bool:
    """Tell whether an error comes from a server, a database or a store, and not from our code."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, MlflowException | OSError) or package in CLIENTS


def _ask(tracking_uri: str, page: str) -> Response:
    response: Response = http_request(
        get_default_host_creds(tracking_uri),
        page,
        "GET",
        max_retries=0,
        timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
        raise_on_status=False,
        allow_redirects=False,
    )
    return response


def _find_fault_of_status(response: Response) -> str | None:
    status = response.status_code
    if status >= SERVER_ERROR:
        return f"it answers with an error of its own, HTTP {status}"
    if status == NOT_FOUND:
        return f"it has no page {PROBE.partition('?')[0]}, as every MLflow server has (HTTP 404)"
    if REDIRECT <= status < UNAUTHORIZED - 1:
        target = urlsplit(response.headers.get("Location", ""))
        named = f"{target.scheme}://{target.hostname}{target.path}" if target.hostname else "a page"
        return f"it redirects to {named}, and MLflow's client cannot follow; name the final address"
    return None


def _find_fault_of_file(file: Path) -> str | None:
    """Describe why a file cannot be the SQLite database; MLflow would notice after minutes."""
    if file.is_dir():
        return "it is a folder"
    folder = next(parent for parent in file.parents if parent.exists())
    for place in (file, folder):  # SQLite keeps a journal beside the file
        if place.exists() and not os.access(place, os.W_OK):
            return f"{place} cannot be written to"
    if not file.is_file() or not file.stat().st_size:
        return None
    with file.open("rb") as opened:
        return None if opened.read(len(HEADER)) == HEADER else "it is no SQLite database"


def _find_fault_of_database(uri: str) -> str | None:
    if file := database_file(uri):
        return _find_fault_of_file(file)
    place = urlsplit(uri)
    port = PORTS.get(place.scheme.partition("+")[0])
    if port is None or not place.hostname:
        return None
    try:
        socket.create_connection((place.hostname, place.port or port), CONNECT_SECONDS).close()
    except OSError as err:
        return f"no database server answers there: {err}"
    return None


def _wait(tracking_uri: str, seconds: float) -> None:
    deadline, is_told = time.monotonic() + seconds, False
    while fault := find_fault(tracking_uri):
        if time.monotonic() > deadline:
            raise _unreachable(tracking_uri, f"{fault}, after {seconds:g} s of waiting")
        if not is_told:
            shown = without_password(tracking_uri)
            logger.warning(
                "the registry at %s is away (%s); waiting up to %g s", shown, fault, seconds
            )
        is_told = True
        time.sleep(POLL_SECONDS)


def _unreachable(tracking_uri: str, reason: object) -> RegistryError:
    return RegistryError(
        f"the model registry at {without_password(tracking_uri)} cannot be reached: "
        f"{describe(reason, tracking_uri)} (conf/*/mlflow.yml: tracking_uri, "
        f"registry_wait_seconds). {HOW_TO_GO_ON}"
    )
