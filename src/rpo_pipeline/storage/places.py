"""Folders that may be behind links, shared with a group, or read-only."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from rpo_pipeline.errors import DataError

REASONS = {
    errno.EROFS: "its file system is mounted read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a file is where a folder belongs",
    errno.EEXIST: "a file is where the folder belongs",
}
WHERE = "`data` and `cache` in conf/*/globals.yml name the folders"


def folders_below(
    folder: Path, unreadable: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """List by name a folder, which may not exist, and those below it, also through links, once.

    ``unreadable`` is called for each folder that this user may not read.
    """
    seen: set[tuple[int, int]] = set()
    for place, names, _ in os.walk(folder, onerror=unreadable, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names.sort()
        yield Path(place)


def files_below(
    folder: Path, pattern: str = "*", unreadable: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """List files at every depth, also through links; files removed meanwhile are left out."""
    for place in folders_below(folder, unreadable):
        with suppress(FileNotFoundError):
            yield from (path for path in sorted(place.glob(pattern)) if path.is_file())


@contextmanager
def working_in(project: Path, data: Path) -> Iterator[None]:
    """Change to the project's folder, and create files that only the user can read.

    Relative paths of the configuration start in this folder, also if the command is called
    elsewhere. Files hold prompts and responses, so only their owner may read them. A data folder
    with the set-group-id bit (``chmod g+s``) is shared: its group may read and write as well. It
    may not exist yet.
    """
    is_shared = data.is_dir() and data.stat().st_mode & stat.S_ISGID
    before = os.umask(stat.S_IRWXO if is_shared else stat.S_IRWXG | stat.S_IRWXO)
    try:
        with chdir(project):
            yield
    finally:
        os.umask(before)


def ensure_folder(folder: Path) -> None:
    """Create a folder, with the folders above it, unless it exists, or raise a DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _not_writable(folder, err) from err


def ensure_writable(folder: Path) -> None:
    """Create a folder and write into it, so that a run that cannot write fails at its start.

    A DataError says why it cannot be created or written to.
    """
    ensure_folder(folder)
    probe = folder / f".probe-{os.getpid()}-{uuid4().hex[:8]}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise _not_writable(folder, err) from err


def _not_writable(folder: Path, err: OSError) -> DataError:
    reason = REASONS.get(err.errno or 0, str(err))
    if folder.is_symlink() and not folder.exists():
        reason = "it is a link that leads nowhere"
    return DataError(f"the folder {folder} cannot be written to: {reason} ({WHERE})")
