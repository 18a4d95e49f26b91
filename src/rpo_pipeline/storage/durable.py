"""Putting a finished file or folder in place so that a crash leaves the old or the new one."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage.places import folders_below
from rpo_pipeline.storage.processes import is_running, start_ticks

logger = logging.getLogger(__name__)

TEMPORARY = re.compile(
    r"\.(?P<stem>.+)-(?P<kind>new|old)-(?P<pid>\d+)(?:t(?P<ticks>\d+))?-[0-9a-f]{8}(?P<suffix>\..*)?"
)
# What file systems answer that cannot sync, which is not the same as a sync that failed.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}


def temporary_sibling(target: Path, *, kind: str = "new") -> Path:
    """A free name beside the target, on the same file system, with the same suffix.

    It says which process works on it, so that ``clear_abandoned`` knows when nobody does. Beside a
    link means beside what the link leads to, which may be on another file system.
    """
    target = _behind_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    ticks = start_ticks(pid)
    owner = f"{pid}" if ticks is None else f"{pid}t{ticks}"
    return target.with_name(f".{target.stem}-{kind}-{owner}-{uuid4().hex[:8]}{target.suffix}")


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
    """Force a file, or a folder with all that is in it, to disk, where the file system can."""
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

    A folder cannot be replaced in one step: the old one is moved aside first, and removed last. A
    link stays, and what it leads to is replaced.

    Args:
        prepared: Beside the target, as ``temporary_sibling`` named it.
        target: Gets its place.

    Raises:
        DataError: If there is a folder where the file belongs, or a file where the folder does.
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


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make a second name for a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # EPERM, ENOTSUP, EXDEV, EMLINK: whatever it says to links
        shutil.copyfile(source, target)


def put_new(prepared: Path, target: Path) -> None:
    """Give a finished file its name if the name is free.

    Without hard links there is a moment between the look and the renaming.

    Args:
        prepared: Finished, on the same file system.
        target: The name.

    Raises:
        FileExistsError: If somebody else was faster.
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
    """Undo what killed processes left half done, and say so.

    A folder that was moved aside, and never replaced, goes back; other temporary names go.

    Args:
        folder: Where to look.
        deep: At every depth, through links as well; or only in the folder itself.
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
        elif path.is_dir():
            shutil.rmtree(path)
            logger.info("%s: removed; a killed run left it", path)
        else:
            path.unlink()
            logger.info("%s: removed; a killed run left it", path)
