"""Sends notifications on a refresh to a webhook, and appends them to a file."""

import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from pydantic import SecretStr

from rpo_pipeline.params import NotificationParams
from rpo_pipeline.secrets import USER_INFO, hide

logger = logging.getLogger(__name__)

TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as a failure."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow no redirect, which would send the message as a GET to an unknown address."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def notify(
    message: Mapping[str, Any],
    settings: NotificationParams,
    *,
    webhook: SecretStr | None,
    file: Path,
) -> None:
    """Send a notification of an event, if the settings name it. Failures are not raised.

    The message has ``event``, ``text`` and further fields, as values for JSON. It is posted to the
    webhook, a secret that appears nowhere; and the file gets it as a line of JSON, with ``at``,
    ``delivered`` (null without a webhook) and ``problem``.
    """
    if message["event"] not in settings.events:
        return
    told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **message}
    told["text"] = USER_INFO.sub("***@", hide(told["text"]))
    problem = _post(told, settings, webhook) if webhook else None
    if problem:
        logger.warning(
            "the notification %r was not delivered: %s; it is kept in %s",
            told["event"],
            problem,
            file,
        )
    kept = {**told, "delivered": not problem if webhook else None, "problem": problem}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(kept) + "\n")
    except OSError as err:
        logger.warning("the notification %s could not be kept: %s", json.dumps(kept), err)


def _post(
    message: Mapping[str, Any], settings: NotificationParams, webhook: SecretStr
) -> str | None:
    """Send until the message is accepted or finally refused, and return the last problem if any."""
    problem = None
    for attempt in range(settings.attempts):
        if attempt:
            time.sleep(settings.pause_seconds * 2 ** (attempt - 1))
        problem, is_final = _try_once(message, settings.timeout_seconds, webhook)
        if problem is None or is_final:
            break
    return problem


def _try_once(
    message: Mapping[str, Any], timeout_seconds: float, webhook: SecretStr
) -> tuple[str | None, bool]:
    """Send once; return the problem, without the address, and whether a repetition is useless."""
    address = webhook.get_secret_value()
    if not address.startswith(("https://", "http://")):
        return "the address of the webhook starts with neither https:// nor http://", True
    answer: Future[int] = Future()
    arguments = (address, json.dumps(message).encode(), timeout_seconds, answer)
    # The timeout of a socket applies to single reads, so a slow server could exceed it; a thread
    # limits the whole attempt.
    Thread(target=_send, args=arguments, daemon=True, name="webhook").start()
    try:
        answer.result(timeout_seconds)
        return None, False
    except urllib.error.HTTPError as err:
        is_final = err.code < SERVER_ERROR and err.code != TOO_MANY_REQUESTS
        return f"the webhook answered with status {err.code}", is_final
    except (OSError, http.client.HTTPException, ValueError) as err:
        reason = getattr(err, "reason", err)
        return f"the webhook cannot be reached ({type(reason).__name__})", False


def _send(address: str, body: bytes, timeout_seconds: float, answer: Future[int]) -> None:
    """Send once, and put the status or the error into the answer."""
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        # The package requests would log the address. The scheme was checked before.
        with _OPENER.open(request, timeout=timeout_seconds) as response:  # nosec B310
            answer.set_result(response.status)
    except (OSError, http.client.HTTPException, ValueError) as err:
        answer.set_exception(err)
