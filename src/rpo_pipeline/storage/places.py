"""Folders as they are on people's machines: behind links, shared with a group, or read-only."""

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
    """A folder and all below it, through links too, each once; nothing where there is none.

    Args:
        folder: Where to begin.
        unreadable: Is told of each folder that this user may not look into.

    Yields:
        The folders, by name.
    """
    seen: set[tuple[int, int]] = set()
    for place, names, _ in os.walk(folder, onerror=unreadable, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names.sort()
        yield Path(place)


def files_below(
    folder: Path, pattern: str = "*", unreadable: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Files of a folder at every depth, through links too; what goes meanwhile is left out."""
    for place in folders_below(folder, unreadable):
        with suppress(FileNotFoundError):
            yield from (path for path in sorted(place.glob(pattern)) if path.is_file())


@contextmanager
def working_in(project: Path, data: Path) -> Iterator[None]:
    """Work in the project's folder, and write files that nobody but the user reads.

    Relative paths of the configuration start there, wherever the command was called or the
    notebook lies. Files hold what people asked and were told, so only their owner reads them. A
    data folder that is shared with its group says so itself, by its set-group-id bit
    (``chmod g+s``): then the group reads and writes as well.

    Args:
        project: Folder with ``conf/``.
        data: Folder of what runs make, which may not exist yet.
    """
    is_shared = data.is_dir() and data.stat().st_mode & stat.S_ISGID
    before = os.umask(stat.S_IRWXO if is_shared else stat.S_IRWXG | stat.S_IRWXO)
    try:
        with chdir(project):
            yield
    finally:
        os.umask(before)


def ensure_folder(folder: Path) -> None:
    """Make a folder that is not there.

    Args:
        folder: With the folders above it.

    Raises:
        DataError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _not_writable(folder, err) from err


def ensure_writable(folder: Path) -> None:
    """Make a folder and write into it, so that a run does not find out at its end that it cannot.

    Args:
        folder: Made if it is not there.

    Raises:
        DataError: If it cannot be made or written to.
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
