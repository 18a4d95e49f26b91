"""Finds the files that a source names: local ones by path or glob, and those of a hub dataset."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.parts import SourceFile
from rpo_pipeline.ingestion.readers import ENDINGS, can_read
from rpo_pipeline.ingestion.records import WHERE, escape
from rpo_pipeline.params import SourceParams
from rpo_pipeline.storage import use_hub_or_cache

logger = logging.getLogger(__name__)

HUB = "hf://"
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files of metadata in a Hugging Face dataset."""
BESIDE = ("readme", "license", "_")
"""Beginnings of the names of files that lie beside data and are no data."""
AT_MOST_NAMED = 5
"""Number of files that a warning names."""


def same_file(path: Path, source: SourceParams) -> Path:
    """Return a path that is equal for two names of one file.

    Links are kept for files of the hub: its cache stores equal files once.
    """
    return path if source.path.startswith(HUB) else path.resolve()


def find_files(source: SourceParams) -> list[SourceFile]:
    """List the files of a source in order of their names; there is at least one.

    ``DataError`` is raised if there is no file, a relative path leads outside the project, or the
    hub does not provide the dataset.
    """
    if source.path.startswith(HUB):
        return _hub_files(source)
    files = _local_files(source.path)
    if not files:
        raise DataError(
            f"no file matches {source.path!r} in {Path.cwd()} ({WHERE}; "
            "`kedro sample-data` writes the sample log)"
        )
    return [SourceFile(file, escape(str(file))) for file in files]


def find_ratings(source: SourceParams) -> list[SourceFile]:
    """List the files of later ratings in order of their names; there may be none yet."""
    if source.ratings_path is None:
        return []
    files = _local_files(source.ratings_path)
    if not files:
        logger.warning("no file of ratings matches %r yet", source.ratings_path)
    return [SourceFile(file, escape(str(file)), holds_ratings=True) for file in files]


def _local_files(path: str) -> list[Path]:
    pattern = Path.home() / path[2:] if path.startswith("~/") else Path(path)
    if not pattern.is_absolute() and ".." in pattern.parts:
        raise _leaves_project(path)
    base = Path(pattern.anchor)
    files = _matching(base, str(pattern.relative_to(base)))
    project = Path.cwd().resolve()
    for file in files:
        if not pattern.is_absolute() and not file.resolve().is_relative_to(project):
            raise _leaves_project(f"{file} -> {file.resolve()}")
    return files


def _matching(base: Path, pattern: str) -> list[Path]:
    """List the files that a pattern names, and those in folders that it names.

    A path that exists is no glob, even with brackets in it. A single file is read or refused; of
    several files, those with unknown endings are left out with a warning.
    """
    if pattern == ".":
        raise DataError(f"{str(base)!r} is no path of a source ({WHERE}: a file, folder or glob)")
    try:
        found = [base / pattern] if (base / pattern).exists() else sorted(base.glob(pattern))
    except (ValueError, IndexError, OSError) as err:
        raise DataError(f"{pattern!r} is no path or glob: {err} ({WHERE})") from err
    if len(found) == 1 and found[0].is_file():
        return [file for file in found if not file.name.startswith(".")]
    return _readable([file for path in found for file in _files_in(path)], pattern)


def _readable(files: Sequence[Path], pattern: str) -> list[Path]:
    """Keep the files that exist and have a known ending; a warning names the others."""
    readable = {file: can_read(file.name) and file.is_file() for file in files}
    left_out = [file for file, can in readable.items() if not can]
    if left_out:
        logger.warning(
            "%s: %d files are not read, for their endings are not known or there is no file "
            "behind a link: %s",
            pattern,
            len(left_out),
            ", ".join(str(file) for file in left_out[:AT_MOST_NAMED]),
        )
    return [file for file, can in readable.items() if can]


def _files_in(path: Path) -> list[Path]:
    """Return a file itself, and of a folder all files that are neither metadata nor hidden."""
    if not path.is_dir():
        return [] if path.name.startswith(".") else [path]
    seen, files = set(), []
    for folder, below, names in os.walk(path, followlinks=True, onerror=_refuse):
        real = Path(folder).resolve()
        below[:] = [] if real in seen else [name for name in below if not name.startswith(".")]
        if real not in seen:  # not a link to a folder above it
            files += [Path(folder, name) for name in names if not _is_beside_data(name)]
        seen.add(real)
    return sorted(files)


def _is_beside_data(name: str) -> bool:
    if name in METADATA or name.startswith((".", "cache-")):
        return True
    return name.lower().startswith(BESIDE) and not can_read(name)


def _refuse(err: OSError) -> None:
    raise DataError(f"the folder {err.filename} cannot be read: {err.strerror} ({WHERE})") from err


def _hub_files(source: SourceParams) -> list[SourceFile]:
    owner, name, *pattern = source.path.removeprefix(HUB).split("/", 2)
    repository = f"{owner}/{name}"
    use_hub_or_cache(source.path)
    try:
        folder = Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=pattern or [f"*{ending}" for ending in ENDINGS],
            )
        )
    except (OSError, ValueError) as err:
        raise DataError(
            f"the hub does not give the dataset {repository} at {source.revision}: {err} "
            f"({WHERE} and .revision; offline, it must be in the cache)"
        ) from err
    files = _matching(folder, *pattern) if pattern else _readable(_files_in(folder), source.path)
    if not files:
        raise DataError(f"no file of {source.path} can be read ({WHERE}: add a glob behind it)")
    at = f"{HUB}{repository}@{str(source.revision)[:8]}"
    return [SourceFile(file, escape(f"{at}/{file.relative_to(folder)}")) for file in files]


def _leaves_project(path: str) -> DataError:
    return DataError(
        f"source {path!r} leaves the project folder ({WHERE}: a path inside it, or an absolute one)"
    )
