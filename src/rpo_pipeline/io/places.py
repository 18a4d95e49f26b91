"""Folders as they are on people's machines: behind links, shared with a group, or read-only."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from rpo_pipeline.errors import DataError

GROUP_MAY, OTHERS_MAY = 0o070, 0o007
SET_GROUP_ID = 0o2000
REASONS = {
    errno.EROFS: "its file system is mounted read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a file is where a folder belongs",
    errno.EEXIST: "a file is where the folder belongs",
    errno.ENOENT: "it is a link that leads nowhere",
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


def keep_private(folder: Path) -> None:
    """Let this process write files that nobody but its user reads.

    They hold what people asked and were told. A data folder that is shared with its group says so
    itself, by its set-group-id bit (``chmod g+s``): then the group reads and writes as well.

    Args:
        folder: Of the data, which may not exist yet.
    """
    is_shared = folder.is_dir() and folder.stat().st_mode & SET_GROUP_ID
    os.umask(OTHERS_MAY if is_shared else GROUP_MAY | OTHERS_MAY)


def ensure_folder(folder: Path) -> None:
    """Make a folder that is not there.

    Raises:
        DataError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _not_writable(folder, err) from err


def ensure_writable(folder: Path) -> None:
    """Make a folder and write into it, so that a run does not find out at its end that it cannot.

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
    return DataError(f"the folder {folder} cannot be written to: {reason} ({WHERE})")
