"""Sources to parts, and parts to rows; files that did not change are not read again."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download

from rpo_pipeline.data.late_ratings import rated_rows, unknown_ratings
from rpo_pipeline.data.parts import (
    QUARANTINE,
    ROWS,
    SourceFile,
    ensure_part,
    remove_other_parts,
)
from rpo_pipeline.data.quarantine import QUARANTINE_SCHEMA, quarantine_table
from rpo_pipeline.data.readers import ENDINGS
from rpo_pipeline.data.records import WHERE, escape
from rpo_pipeline.data.redaction import Privacy
from rpo_pipeline.data.rows import NOTHING_PRIVATE, ROW_SCHEMA
from rpo_pipeline.errors import DataError
from rpo_pipeline.io.hub import use_hub_or_cache
from rpo_pipeline.params import SourceParams

logger = logging.getLogger(__name__)

HUB = "hf://"
BATCH_ROWS = 1000
Part = dict[str, Any]
"""What was made of one file: its ``path``, ``key`` (the part's folder), ``rows``, ``rated`` ones,
``rejected``; of a ratings file also ``ratings_of``, the keys of the logs that it may refer to."""
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files beside the data of a Hugging Face dataset."""


def read_sources(
    sources: Sequence[SourceParams], folder: Path, privacy: Privacy = NOTHING_PRIVATE
) -> list[Part]:
    """Read what is new in the sources.

    Args:
        sources: Files, folders, globs or hub datasets; paths from the current directory.
        folder: Of the parts that earlier runs read. Those that no source refers to any more are
            removed from it.
        privacy: What is redacted, and which prompts are forgotten.

    Returns:
        The parts, in order of reading.

    Raises:
        DataError: If a path names no file, leaves the project, has an unknown ending, cannot be
            read as its type, or holds no record at all.
    """
    files: dict[Path, tuple[SourceFile, int]] = {}
    for number, source in enumerate(sources):
        for file in [*find_files(source), *find_ratings(source)]:
            if file.path in files:
                logger.warning("%s is in more than one source: the first counts", file.name)
            files.setdefault(file.path, (file, number))
    found = {
        path: ensure_part(folder, file, sources[number], privacy)
        for path, (file, number) in files.items()
    }
    num_read = sum(is_new for _, is_new in found.values())
    logger.info("sources: %d files unchanged, %d read", len(found) - num_read, num_read)
    remove_other_parts(folder, [part for part, _ in found.values()])
    logs: dict[int, list[str]] = {}
    for path, (file, number) in files.items():
        if not file.holds_ratings:
            logs.setdefault(number, []).append(found[path][0].name)
    return [
        _describe(file, found[path][0])
        | ({"ratings_of": logs[number]} if file.holds_ratings else {})
        for path, (file, number) in files.items()
    ]


def _describe(file: SourceFile, part: Path) -> Part:
    rewards = pq.read_table(part / ROWS, columns=["raw_reward"])["raw_reward"]
    return {
        "path": escape(file.name),
        "key": part.name,
        "rows": len(rewards),
        "rated": len(rewards) - rewards.null_count,
        "rejected": pq.read_metadata(part / QUARANTINE).num_rows,
    }


def read_rows(parts: Sequence[Part], folder: Path) -> pa.RecordBatchReader:
    """The rows of the parts (``ROW_SCHEMA``), in order of reading, batch by batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for part in parts:
            for batch in _batches(part, folder):
                positions = pa.array(range(start, start + len(batch)), pa.int64())
                start += len(batch)
                yield batch.drop_columns("response_id").append_column("position", positions)

    return pa.RecordBatchReader.from_batches(ROW_SCHEMA, batches())


def _batches(part: Part, folder: Path) -> Iterator[pa.RecordBatch]:
    file = folder / part["key"] / ROWS
    if "ratings_of" in part:
        return rated_rows(file, _logs(part, folder))
    batches: Iterator[pa.RecordBatch] = pq.ParquetFile(file).iter_batches(BATCH_ROWS)
    return batches


def _logs(part: Part, folder: Path) -> list[Path]:
    return [folder / key / ROWS for key in part["ratings_of"]]


def read_rejected(parts: Sequence[Part], folder: Path) -> pd.DataFrame:
    """What could not be used: origin, line, reason, raw."""
    tables = [pq.read_table(folder / part["key"] / QUARANTINE) for part in parts]
    tables += [
        unknown_ratings(folder / part["key"] / ROWS, _logs(part, folder))
        for part in parts
        if "ratings_of" in part
    ]
    return quarantine_table(pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *tables]))


def find_files(source: SourceParams) -> list[SourceFile]:
    """Files of a source, in order of their names.

    Args:
        source: Its path and, on the hub, its revision.

    Returns:
        Files that exist, at least one.

    Raises:
        DataError: If there is none, one of them lies outside the project though the path is
            relative, or the hub does not give it.
    """
    if source.path.startswith(HUB):
        return _hub_files(source)
    files = _local_files(source.path)
    if not files:
        raise DataError(
            f"no file matches {source.path!r} in {Path.cwd()} ({WHERE}; "
            "`python -m rpo_pipeline sample-data` writes the sample log)"
        )
    return [SourceFile(file, str(file)) for file in files]


def find_ratings(source: SourceParams) -> list[SourceFile]:
    """Files of later ratings, in order of their names; there may be none yet."""
    if source.ratings_path is None:
        return []
    files = _local_files(source.ratings_path)
    if not files:
        logger.warning("no file of ratings matches %r yet", source.ratings_path)
    return [SourceFile(file, str(file), holds_ratings=True) for file in files]


def _local_files(path: str) -> list[Path]:
    pattern = Path(path)
    if not pattern.is_absolute() and ".." in pattern.parts:
        raise _leaves_project(path)
    base = Path(pattern.anchor)
    files = _matching(base, str(pattern.relative_to(base)))
    project = Path.cwd()
    for file in files:
        if not pattern.is_absolute() and not file.resolve().is_relative_to(project.resolve()):
            raise _leaves_project(f"{file} -> {file.resolve()}")
    return files


def _matching(base: Path, pattern: str) -> list[Path]:
    try:
        found = sorted(base.glob(pattern))
    except (ValueError, IndexError) as err:
        raise DataError(f"{pattern!r} is no path or glob: {err} ({WHERE})") from err
    files = [file for path in found for file in _files_in(path)]
    return list(dict.fromkeys(file for file in files if not file.name.startswith(".")))


def _files_in(path: Path) -> Iterator[Path]:
    """The file itself; of a folder, all that can be read and is no metadata of a dataset."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            is_data = file.name not in METADATA and not file.name.startswith("cache-")
            if file.is_file() and file.name.endswith(ENDINGS) and is_data:
                yield file


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
    files = _matching(folder, *pattern) if pattern else list(_files_in(folder))
    if not files:
        raise DataError(f"no file of {source.path} can be read ({WHERE}: add a glob behind it)")
    at = f"{HUB}{repository}@{str(source.revision)[:8]}"
    return [SourceFile(file, f"{at}/{file.relative_to(folder)}") for file in files]


def _leaves_project(path: str) -> DataError:
    return DataError(
        f"source {path!r} leaves the project folder ({WHERE}: a path inside it, or an absolute one)"
    )
