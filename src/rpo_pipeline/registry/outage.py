"""Servers that do not answer: how that is noticed, waited for, and said."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import RequestException

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.secrets import without_password

logger = logging.getLogger(__name__)

PROBE_SECONDS, POLL_SECONDS = 5, 2.0
SERVER_ERROR, TOO_MANY_REQUESTS = 500, 429
HOW_TO_GO_ON = (
    "Nothing is lost: what was made stays in the data folder, and once the registry answers, the "
    "same `kedro run` goes on from there without training again"
)

Function = TypeVar("Function", bound=Callable[..., Any])


def answers(tracking_uri: str) -> bool:
    """Whether a server is there, asked for seconds; a database is taken to be."""
    if not tracking_uri.startswith(("http://", "https://")):
        return True
    try:
        response = http_request(
            get_default_host_creds(tracking_uri),
            "/health",
            "GET",
            max_retries=0,
            timeout=PROBE_SECONDS,
            raise_on_status=False,
        )
    except (MlflowException, RequestException):
        return False
    return bool(response.status_code < SERVER_ERROR)  # who has no such page is there as well


def require_answer(tracking_uri: str) -> None:
    """Raise a ``ConnectionError`` where nobody answers."""
    if not answers(tracking_uri):
        raise ConnectionError("nobody answers there")


def is_refusal(error: Exception) -> bool:
    """Whether a server understood a request and said no, which trying again will not change."""
    if not isinstance(error, MlflowException):
        return False
    status = error.get_http_status_code()
    return bool(status < SERVER_ERROR and status != TOO_MANY_REQUESTS)


def needs_registry(function: Function) -> Function:
    """Let a function whose first argument is the run wait for a registry that is away.

    It is waited for as long as ``registry_wait_seconds`` of the run says. A registry that stays
    away, or leaves in the middle, is a ``RegistryError`` that says how to go on.
    """

    @functools.wraps(function)
    def reaching(run: Mapping[str, str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        _wait(run["tracking_uri"], float(run["registry_wait_seconds"]))
        try:
            return function(run, *args, **kwargs)
        except (MlflowException, RequestException) as err:
            if is_refusal(err):
                raise
            raise _unreachable(run["tracking_uri"], err) from err

    return cast(Function, reaching)


def _wait(tracking_uri: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    waiting = False
    while not answers(tracking_uri):
        if time.monotonic() > deadline:
            raise _unreachable(tracking_uri, f"no answer for {seconds:g} s")
        if not waiting:
            shown = without_password(tracking_uri)
            logger.warning("the registry at %s is away; waiting up to %g s", shown, seconds)
        waiting = True
        time.sleep(POLL_SECONDS)


def _unreachable(tracking_uri: str, reason: object) -> RegistryError:
    shown = without_password(tracking_uri)
    said = str(reason).replace(tracking_uri, shown)
    return RegistryError(
        f"the model registry at {shown} cannot be reached: {said} (conf/*/mlflow.yml: "
        f"tracking_uri, registry_wait_seconds). {HOW_TO_GO_ON}"
    )
