"""A lock that allows one run at a time, and a file beside it that names its owner."""

import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rpo_pipeline.errors import DataError, RpoError
from rpo_pipeline.storage import ensure_writable, is_running, start_ticks

logger = logging.getLogger(__name__)

RUN_LOCK = "run.lock"
"""Name of the lock file, in the folder of the refresh, that each run on the data folder holds."""
SECONDS_TO_SIGN = 2.0
"""Time in which a new owner of the lock writes its identity."""


class BusyError(RpoError, RuntimeError):
    """Another run uses the same data folder."""


@contextmanager
def only_run(file: Path) -> Iterator[None]:
    """Hold a lock file, or raise an error if another run holds it.

    The kernel releases the lock when its owner ends in any way, so it never has to be removed. A
    ``.json`` file beside it holds the owner's identity; that of a killed owner is replaced. A
    BusyError names the owner of a held lock; a DataError says that the folder cannot be written to,
    or that its file system has no locks.
    """
    ensure_writable(file.parent)
    signature = signature_of(file)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another run is at work here: {_describe_owner(signature)} ({file})"
        ) from None
    except (OSError, NotImplementedError) as err:
        raise DataError(
            f"{file} cannot be locked ({err}): without locks (flock), two runs at one time would "
            "write over each other. Mount the file system with locks, or put the data on another "
            "one (`data` in conf/*/globals.yml)"
        ) from err
    try:
        if (left := _read(signature)) is not None:
            logger.warning("a run was killed and its lock is free: %s", _describe(left))
        identity = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "ticks": start_ticks(os.getpid()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
        }
        signature.write_text(json.dumps(identity))
        yield
    finally:
        signature.unlink(missing_ok=True)
        lock.release()


def signature_of(file: Path) -> Path:
    """Name the file with the identity of a lock's owner."""
    return file.with_suffix(".json")


def _describe_owner(signature: Path) -> str:
    """Describe the owner of the lock; the identity of an ended process is ignored."""
    deadline = time.monotonic() + SECONDS_TO_SIGN
    while time.monotonic() < deadline:
        owner = _read(signature)
        if owner is not None and not is_gone(owner):
            return _describe(owner)
        time.sleep(0.05)
    return "it did not say which"


def is_gone(owner: dict[str, Any]) -> bool:
    """Whether the process of an identity has ended, as far as this host can tell."""
    return owner["host"] == socket.gethostname() and not is_running(owner["pid"], owner["ticks"])


def _read(signature: Path) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads(signature.read_text())
    except (FileNotFoundError, ValueError):  # the file is missing or incomplete
        return None
    return owner


def _describe(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}: {owner['command']}"
