"""Telling people how a refresh went: a webhook, and a file that keeps every message."""

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
    """Leaves a redirect what it is: an answer that does not take the message."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow nothing: the message would go to an address that nobody chose, as a GET."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def notify(
    message: Mapping[str, Any],
    settings: NotificationParams,
    *,
    webhook: SecretStr | None,
    file: Path,
) -> None:
    """Tell of an event, if it is one of those to be told. Nothing that fails here is raised.

    Args:
        message: ``event`` and ``text``, and what else receivers may want, as JSON can say it.
        settings: Which events, and how patiently the webhook is tried.
        webhook: Address that is POSTed to; it is a secret and appears nowhere. None: the file only.
        file: Gets a line of JSON: the message with ``at``, ``delivered`` (null without a webhook)
            and the ``problem``.
    """
    if message["event"] not in settings.events:
        return
    told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **message}
    told["text"] = USER_INFO.sub("***@", hide(told["text"]))
    problem = _post(told, settings, webhook) if webhook else None
    if problem:
        logger.warning(
            "the notification %r was not delivered: %s; it is kept in %s",
            *(told["event"], problem, file),
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
    """Send until it is taken, or refused for good; the last problem, None if it was delivered."""
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
    """What went wrong, and whether trying again is useless; errors quote the address, we do not."""
    address = webhook.get_secret_value()
    if not address.startswith(("https://", "http://")):
        return "the address of the webhook starts with neither https:// nor http://", True
    answer: Future[int] = Future()
    arguments = (address, json.dumps(message).encode(), timeout_seconds, answer)
    # The timeout of a socket is that of one read: whoever sends a byte a minute is never late.
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
    """Send once; the status, or what went wrong, becomes the answer."""
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        # Not requests, which logs addresses; the scheme was checked before.
        with _OPENER.open(request, timeout=timeout_seconds) as response:  # nosec B310
            answer.set_result(response.status)
    except (OSError, http.client.HTTPException, ValueError) as err:
        answer.set_exception(err)
