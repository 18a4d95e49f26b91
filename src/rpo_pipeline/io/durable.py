"""Putting a finished file or folder in place so that a crash leaves the old or the new one."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

logger = logging.getLogger(__name__)

TEMPORARY = re.compile(
    r"\.(?P<stem>.+)-(?P<kind>new|old)-(?P<pid>\d+)-[0-9a-f]{8}(?P<suffix>\..*)?"
)
CLOCK_SECONDS = 2  # a file system's clock may be coarser than the kernel's


def temporary_sibling(target: Path, *, kind: str = "new") -> Path:
    """A free name beside the target, on the same file system, with the same suffix.

    It says which process works on it, so that ``clear_abandoned`` knows when nobody does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem}-{kind}-{os.getpid()}-{uuid4().hex[:8]}{target.suffix}"
    return target.with_name(name)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder for the time being, on the same file system as its parent."""
    folder = temporary_sibling(parent / "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file, or a folder with all that is in it, to disk."""
    for part in [path, *path.rglob("*")]:
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put_in_place(prepared: Path, target: Path) -> None:
    """Rename a prepared file or folder to its target, replacing what was there.

    A folder cannot be replaced in one step: the old one is moved aside first, and removed last.
    """
    sync(prepared)
    old = temporary_sibling(target, kind="old")
    if target.is_dir():
        target.rename(old)
    prepared.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def clear_abandoned(folder: Path, pattern: str = "**/.*") -> None:
    """Undo what killed processes left half done, and say so.

    A folder that was moved aside, and never replaced, goes back; other temporary names go.

    Args:
        folder: Where to look.
        pattern: For what; at every depth, unless it says otherwise.
    """
    for path in sorted(folder.glob(pattern)):
        name = TEMPORARY.fullmatch(path.name)
        if name is None or not path.exists() or _is_at_work(int(name["pid"]), path):
            continue
        target = path.with_name(f"{name['stem']}{name['suffix'] or ''}")
        if name["kind"] == "old" and not target.exists():
            path.rename(target)
            logger.warning("%s: put back; a killed run had moved it aside", target)
        elif path.is_dir():
            shutil.rmtree(path)
            logger.info("%s: removed; a killed run left it", path)
        else:
            path.unlink()
            logger.info("%s: removed; a killed run left it", path)


def _is_at_work(pid: int, path: Path) -> bool:
    """Whether the process that made a name still runs; a later one may have its number."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return bool(path.stat().st_ctime + CLOCK_SECONDS >= started)
