"""Files and folders that a crash leaves either old or new, and errors of damaged ones."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage.places import folders_below
from rpo_pipeline.storage.processes import is_running, start_ticks

logger = logging.getLogger(__name__)

TEMPORARY = re.compile(
    r"\.(?P<stem>.+)-(?P<kind>new|old)-(?P<pid>\d+)(?:t(?P<ticks>\d+))?-[0-9a-f]{8}(?P<suffix>\..*)?"
)
# Errors of file systems that cannot sync, which differ from errors of a failed sync.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
DAMAGED = (pa.ArrowException, OSError)
"""Errors that pyarrow raises for a file that is no whole Parquet file."""


def first_line(error: BaseException) -> str:
    """Write an error in one line of at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def is_whole_parquet(file: Path) -> bool:
    """Tell whether a file exists and ends like Parquet; its pages are not read."""
    try:
        pq.read_metadata(file)
    except DAMAGED:
        return False
    return True


def temporary_sibling(target: Path, *, kind: str = "new") -> Path:
    """Choose a free name beside the target, on the same file system, with the same suffix.

    It contains the process id, by which ``clear_abandoned`` tells whether it is in use. For a link
    the name is beside the link's target, which may be on another file system.
    """
    target = _behind_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    ticks = start_ticks(pid)
    owner = f"{pid}" if ticks is None else f"{pid}t{ticks}"
    return target.with_name(f".{target.stem}-{kind}-{owner}-{uuid4().hex[:8]}{target.suffix}")


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder on the same file system as its parent."""
    folder = temporary_sibling(parent / "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Sync a file, or a folder with its content, to disk, if the file system can."""
    for part in [path, *path.rglob("*")]:
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as err:
            if err.errno not in NO_SYNC:
                raise
        finally:
            os.close(descriptor)


def put_in_place(prepared: Path, target: Path) -> None:
    """Rename a prepared file or folder to its target, replacing what was there.

    A folder cannot be replaced in one step: the old one is renamed first, and removed last. A link
    stays, and its target is replaced. A DataError says that one is a file and the other a folder.
    """
    target = _behind_link(target)
    if target.exists() and target.is_dir() != prepared.is_dir():
        there, belongs = ("folder", "file") if target.is_dir() else ("file", "folder")
        raise DataError(
            f"{target} is a {there}, and a {belongs} of this name is to be written: move the "
            f"{there} away, and run again"
        )
    sync(prepared)
    old = temporary_sibling(target, kind="old")
    if target.is_dir():
        target.rename(old)
    prepared.replace(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A free name beside a target, whose place the file or folder made there gets at the end.

    After an error the target is as it was, and what was made goes.
    """
    prepared = temporary_sibling(target)
    try:
        yield prepared
        put_in_place(prepared, target)
    finally:
        if prepared.is_dir():
            shutil.rmtree(prepared, ignore_errors=True)
        else:
            prepared.unlink(missing_ok=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Create a hard link to a file, or a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # file systems refuse links with EPERM, ENOTSUP, EXDEV or EMLINK
        shutil.copyfile(source, target)


def put_new(prepared: Path, target: Path) -> None:
    """Give a finished file of the same file system its name, or raise a FileExistsError.

    On a file system without hard links the check and the renaming are not atomic.
    """
    try:
        os.link(prepared, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        prepared.rename(target)


def _behind_link(target: Path) -> Path:
    return target.resolve() if target.is_symlink() else target


def clear_abandoned(folder: Path, *, deep: bool = True) -> None:
    """Clean up and log what killed processes left unfinished in a folder, or ``deep`` below it.

    A folder that was renamed but not replaced gets its name back; other temporary names are
    removed. Links are followed.
    """
    places = folders_below(folder) if deep else [folder]
    for path in [path for place in places for path in sorted(place.glob(".*"))]:
        name = TEMPORARY.fullmatch(path.name)
        if name is None or not path.exists():
            continue
        if is_running(int(name["pid"]), int(name["ticks"]) if name["ticks"] else None):
            continue
        target = path.with_name(f"{name['stem']}{name['suffix'] or ''}")
        if name["kind"] == "old" and not target.exists():
            path.rename(target)
            logger.warning("%s: put back; a killed run had moved it aside", target)
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        logger.info("%s: removed; a killed run left it", path)
