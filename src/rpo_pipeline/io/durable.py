"""Putting a finished file or folder in place so that a crash leaves the old or the new one."""

import os
import shutil
from pathlib import Path
from uuid import uuid4


def temporary_sibling(target: Path) -> Path:
    """A free name beside the target, on the same file system, with the same suffix."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.stem}-{uuid4().hex[:8]}{target.suffix}")


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
    old = temporary_sibling(target)
    if target.is_dir():
        target.rename(old)
    prepared.replace(target)
    shutil.rmtree(old, ignore_errors=True)
