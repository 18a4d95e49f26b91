"""What a tracking server has not taken yet, kept on disk until it does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from rpo_pipeline.io.durable import link_or_copy, put_in_place, temporary_sibling

Entry = dict[str, Any]
"""One call: what JSON can say; ``file`` is the path of an artifact."""


class Outbox:
    """Calls in the order in which they were made, as lines of JSON, with copies of their files.

    Whoever opens it owns it until it is released, or the process ends: an outbox that nobody owns
    is of a run that is over.

    Args:
        folder: Its own; there while it is open, and after that only with entries.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "entries.jsonl"
        # Not by thread: the one that follows metrics adds to it as well.
        self._lock = FileLock(folder / "lock", thread_local=False)
        self._waiting: list[Entry] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @classmethod
    def left_behind(cls, folder: Path) -> Self | None:
        """The outbox of a run that has ended, with its entries; None where one is still at it."""
        outbox = cls(folder)
        try:
            outbox.open(timeout=0)
        except Timeout:
            return None
        return outbox

    def open(self, *, timeout: float = -1) -> None:
        """Own it, with what an earlier process of the same run left in it.

        Args:
            timeout: Seconds to wait for whoever owns it; below 0 without end.

        Raises:
            Timeout: If he still does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(timeout=timeout)
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        # A line that a killed run did not finish tells of a call that came to nothing either.
        self._waiting = [json.loads(line) for line in lines if line.endswith(b"\n")]
        if len(self) < len(lines):
            self._write()

    def add(self, entry: Entry) -> None:
        """Keep a call, with its file as it is now."""
        if "file" in entry:
            entry = {**entry, "file": str(self._keep(Path(entry["file"])))}
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._waiting.append(entry)

    def send(self, deliver: Callable[[Entry], None]) -> None:
        """Deliver from the first call on; what follows one that fails stays.

        Args:
            deliver: Takes an entry; its error is passed on.
        """
        before = len(self)
        try:
            while self._waiting:
                deliver(self._waiting[0])
                del self._waiting[0]
        finally:
            if len(self) < before:
                self._write()

    def release(self) -> None:
        """Leave it to whoever comes next; an empty one is removed."""
        if not self._waiting:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release(force=True)

    def _keep(self, file: Path) -> Path:
        """Link a file, under its own name: results are replaced, never written over."""
        kept = self.folder / uuid4().hex / file.name
        kept.parent.mkdir()
        link_or_copy(file, kept)
        return kept

    def _write(self) -> None:
        prepared = temporary_sibling(self._file)
        prepared.write_text("".join(json.dumps(entry) + "\n" for entry in self._waiting))
        put_in_place(prepared, self._file)
