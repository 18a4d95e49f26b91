"""Stores calls on disk until a tracking server accepts them.

Calls that can never be sent, because they are damaged or the server refuses them, are moved to a
folder beside the outbox, ``<run id>.broken``, so that they neither block others nor are lost.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from rpo_pipeline.storage import link_or_copy, replacing

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
"""One call as JSON; ``file`` is the path of an artifact."""
BROKEN = ".broken"
ENTRIES, LOCK = "entries.jsonl", "lock"


class Outbox:
    """Stores calls in their order as lines of JSON, with copies of their files.

    The process that opens an outbox holds its lock until it releases the outbox or ends, so an
    unlocked outbox belongs to a run that has ended. Its folder is removed on release if it holds
    no call.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / ENTRIES
        self._broken = folder.with_name(folder.name + BROKEN)
        # The lock belongs to the process: the thread that follows metrics adds calls as well.
        self._lock = FileLock(folder / LOCK, thread_local=False)
        self._waiting: list[Entry] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @classmethod
    def left_behind(cls, folder: Path) -> Self | None:
        """Open the outbox of a run that has ended, with its entries.

        The result is None if its run is still active, or if the folder is no outbox: that is
        renamed ``*.broken``.
        """
        if folder.name.startswith(".") or folder.name.endswith(BROKEN):
            return None
        if not any((folder / name).is_file() for name in (LOCK, ENTRIES)):
            folder.rename(folder.with_name(folder.name + BROKEN))
            logger.warning("%s is no outbox, and is called %s%s now", folder, folder.name, BROKEN)
            return None
        outbox = cls(folder)
        try:
            outbox.open(timeout=0)
        except Timeout:
            return None
        return outbox

    def open(self, *, timeout: float = -1) -> None:
        """Lock the outbox and read the calls that an earlier process of the same run stored.

        Damaged lines are set aside.

        A ``Timeout`` is raised if another process still holds the lock after so many seconds;
        with a negative number there is no limit.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(timeout=timeout)
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        # An incomplete line is of a call that a killed run had not finished.
        complete = [line for line in lines if line.endswith(b"\n")]
        read = [(line, _read(line)) for line in complete]
        self._waiting = [entry for _, entry in read if entry is not None]
        damaged = [line for line, entry in read if entry is None]
        if damaged:
            self._set_aside(b"".join(damaged), self._unnamed_files())
            logger.warning(
                "%d damaged calls of %s are in %s", len(damaged), self.folder, self._broken
            )
        if len(self) < len(lines):
            self._write()

    def add(self, entry: Entry) -> None:
        """Store a call with its file in its current state."""
        if "file" in entry:
            entry = {**entry, "file": str(self._keep(Path(entry["file"])))}
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._waiting.append(entry)

    def send(
        self, deliver: Callable[[Entry], None], *, refuses: Callable[[Exception], bool]
    ) -> int:
        """Deliver calls in order until one fails; that call and later ones stay.

        An entry is set aside if ``refuses`` says so of the error of its delivery; any other error
        is raised again. The result is the number of delivered calls.
        """
        before, refused = len(self), 0
        try:
            while self._waiting:
                entry = self._waiting[0]
                try:
                    deliver(entry)
                except Exception as err:
                    if not refuses(err):
                        raise
                    refused += 1
                    self._set_aside_refused(entry, err)
                del self._waiting[0]
        finally:
            if len(self) < before:
                self._write()
            if refused:
                logger.warning(
                    "%d calls of %s were refused; they and the reasons are in %s",
                    *(refused, self.folder, self._broken),
                )
        return before - refused

    def release(self) -> None:
        """Release the lock; an empty outbox is removed."""
        if not self._waiting:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release(force=True)

    def _keep(self, file: Path) -> Path:
        """Link a file under its own name; a link is enough, as results are never edited."""
        kept = self.folder / uuid4().hex / file.name
        kept.parent.mkdir()
        link_or_copy(file, kept)
        return kept

    def _set_aside_refused(self, entry: Entry, error: Exception) -> None:
        files = [Path(entry["file"]).parent] if "file" in entry else []
        line = json.dumps({**entry, "refused": str(error)}) + "\n"
        self._set_aside(line.encode(), [file for file in files if file.parent == self.folder])

    def _set_aside(self, lines: bytes, files: list[Path]) -> None:
        self._broken.mkdir(exist_ok=True)
        with (self._broken / ENTRIES).open("ab") as file:
            file.write(lines)
        for folder in files:
            folder.replace(self._broken / folder.name)

    def _unnamed_files(self) -> list[Path]:
        """List folders of files that no readable call names."""
        named = {Path(str(entry.get("file"))).parent for entry in self._waiting}
        return [path for path in self.folder.iterdir() if path.is_dir() and path not in named]

    def _write(self) -> None:
        with replacing(self._file) as prepared:
            prepared.write_text("".join(json.dumps(entry) + "\n" for entry in self._waiting))


def _read(line: bytes) -> Entry | None:
    """Parse the call of a line; the result is None if the line is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # the line is no JSON, or no UTF-8
        return None
    is_call = isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("run_id", "call")
    )
    return entry if is_call else None
