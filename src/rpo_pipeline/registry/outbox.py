"""What a tracking server has not taken yet, kept on disk until it does."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from rpo_pipeline.io.durable import put_in_place, temporary_sibling

Entry = dict[str, Any]
"""One call: what JSON can say; ``file`` is the path of an artifact."""


class Outbox:
    """Calls in the order in which they were made, as lines of JSON, with copies of their files.

    Whoever adds to it owns it until it is released, or the process ends.

    Args:
        folder: Its own; made with the first entry, removed with the last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "entries.jsonl"
        self._lock = FileLock(folder / "lock")
        self._waiting: list[Entry] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @classmethod
    def left_behind(cls, folder: Path) -> Self | None:
        """The outbox of a run that has ended, with its entries; None where one is still at it."""
        outbox = cls(folder)
        try:
            outbox._lock.acquire(timeout=0)
        except Timeout:
            return None
        lines = outbox._file.read_bytes().splitlines(keepends=True) if outbox._file.exists() else []
        # A line that a killed run did not finish tells of a call that came to nothing either.
        outbox._waiting = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return outbox

    def add(self, entry: Entry) -> None:
        """Keep a call, with its file as it is now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
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
            if not self._waiting:
                self.release()
                shutil.rmtree(self.folder, ignore_errors=True)
            elif len(self) < before:
                self._write()

    def release(self) -> None:
        """Leave it to whoever comes next."""
        self._lock.release(force=True)

    def _keep(self, file: Path) -> Path:
        """Link a file, under its own name: results are replaced, never written over."""
        self._added += 1
        kept = self.folder / f"{self._added:04d}" / file.name
        kept.parent.mkdir()
        try:
            os.link(file, kept)
        except OSError:  # another file system
            shutil.copyfile(file, kept)
        return kept

    def _write(self) -> None:
        prepared = temporary_sibling(self._file)
        prepared.write_text("".join(json.dumps(entry) + "\n" for entry in self._waiting))
        put_in_place(prepared, self._file)
