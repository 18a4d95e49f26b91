"""Erases prompts on request from everything that the project has written.

Files are recognised by their content, not by name: rows are removed from every table that names
prompts or rows, and every report that quotes a prompt is removed. So the files of new pipelines are
covered as well.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rpo_pipeline.erasure.forgotten import (
    FORGOTTEN,
    Memory,
    find_rows,
    is_any,
    name_matches,
    take_out,
)
from rpo_pipeline.erasure.quotes import Quotes
from rpo_pipeline.erasure.tracked_reports import erase_reports
from rpo_pipeline.errors import RpoError
from rpo_pipeline.ingestion import QUARANTINE_SCHEMA, Reason
from rpo_pipeline.operations import Environment, only_run, read_environments, signature_of
from rpo_pipeline.registry import registered_versions
from rpo_pipeline.storage import (
    DAMAGED,
    SHARDS,
    clear_abandoned,
    files_below,
    first_line,
    replacing,
    working_in,
)

SOURCES, MODELS = "01_raw", "06_models"
TEXTS = {".html", ".json", ".jsonl", ".csv", ".txt", ".md"}


@dataclass
class Erasure:
    """What was erased, and what could not be."""

    erased: list[str] = field(default_factory=list)
    """Places and numbers of rows, as text."""
    left: list[str] = field(default_factory=list)
    """Places that still hold a prompt, or weights that were trained on it."""
    is_complete: bool = True
    """False if something could not be read, so that the call must be repeated."""

    @contextmanager
    def naming(self, place: Path) -> Iterator[None]:
        """Record a place that cannot be read or changed, and continue with the others."""
        try:
            yield
        except FileNotFoundError:  # it was removed together with another file
            pass
        except DAMAGED as err:
            self.miss(f"{place}, which cannot be read or changed ({first_line(err)}): remove it")

    def miss(self, place: str) -> None:
        """Record a place that may still hold a prompt."""
        self.is_complete = False
        if place not in self.left:
            self.left.append(place)


def forget(prompt_ids: Collection[str], project: Path) -> Erasure:
    """Erase prompts, and everything that was computed from them, in every environment.

    First their hashes are recorded, so that no later run reads them again, with what the tables
    hold about them, so that any later call can finish an interrupted erasure. Then files that quote
    them are erased, and rows of tables last. Links are followed, out of the data folder as well.
    The ids are those of the tables; without any, an interrupted erasure is finished. A BusyError
    says that a run is active, which could read the prompts again, and a ConfigError that no
    environment can be read; one of several is reported in the result.
    """
    environments, faults = read_environments(project)
    with ExitStack() as held:
        for lock in sorted({one.lock for one in environments if one.lock.exists()}):
            held.enter_context(only_run(lock))
        held.enter_context(working_in(project, environments[0].data))
        result = _forget(set(prompt_ids), project, environments, faults)
    prefix = f"{project}/"
    result.erased = [line.removeprefix(prefix) for line in result.erased]
    result.left = [line.replace(prefix, "", 1) for line in result.left]
    return result


def _forget(
    ids: set[str], project: Path, environments: Sequence[Environment], faults: Sequence[str]
) -> Erasure:
    result = Erasure()
    for fault in faults:
        result.miss(fault)
    for folder in _folders(environments):
        clear_abandoned(folder)
    known = Memory({one.data / FORGOTTEN for one in environments}, result.miss)
    interrupted = {one for one, traces in known.traces.items() if not traces.is_done}
    ids |= interrupted
    files = _files(environments, result)
    tables = [file for file in files if file.suffix == ".parquet" and file.name != FORGOTTEN.name]
    for file in tables:
        with result.naming(file):
            _trace(file, ids, known, environments)
    known.write(ids, is_done=False)
    texts, row_ids = known.gathered(ids, "prompts"), known.gathered(ids, "row_ids")
    quotes = Quotes(ids, texts)
    for file in files:
        with result.naming(file):
            _erase_text(file, quotes, result)
    _erase_in_registry(environments, project, quotes, result)
    for file in reversed(tables):  # the tables with texts come first in order, so they go last
        with result.naming(file):
            count = _erase_rows(file, ids, row_ids, is_resumed=bool(interrupted))
            result.erased += [f"{file}: {count} rows"] if count else []
    known.write(ids, is_done=result.is_complete)
    result.left += [f"source {origin}" for origin in sorted(known.gathered(ids, "origins"))]
    for environment in environments:
        if environment.name in known.gathered(ids, "learned_in"):
            result.left += _models(environment, project)
    return result


def _folders(environments: Sequence[Environment]) -> set[Path]:
    return {one.data for one in environments} | {one.cache for one in environments}


def _files(environments: Sequence[Environment], result: Erasure) -> list[Path]:
    """List the files that runs wrote, without sources."""
    signatures = {signature_of(one.lock) for one in environments}  # these quote our command line

    def name(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # the environment has never run
            result.miss(f"{error.filename}, which cannot be looked into ({error.strerror})")

    found = {
        file
        for folder in _folders(environments)
        for file in files_below(folder, unreadable=name)
        if SOURCES not in file.relative_to(folder).parts
    }
    return sorted(found - signatures)


def _trace(file: Path, ids: set[str], known: Memory, environments: Sequence[Environment]) -> None:
    """Record what a table holds about prompts."""
    if "prompt_id" not in pq.read_schema(file).names:
        return
    for row in find_rows(file, is_any("prompt_id", ids)):
        traces = known.of(str(row["prompt_id"]))
        if row.get("prompt"):
            traces.prompts.add(str(row["prompt"]))
        # A row without text may hold the response to another prompt, as in the pairs of KTO.
        if row.get("prompt") and row.get("row_id"):
            traces.row_ids.add(str(row["row_id"]))
        if row.get("origin"):
            traces.origins.add(str(row["origin"]))
        if row.get("split") in ("train", "validation"):
            traces.learned_in.add(_owner(file, environments).name)


def _owner(file: Path, environments: Sequence[Environment]) -> Environment:
    """Find the environment whose folder holds a file; folders may be nested."""
    holding = [one for one in environments if file.is_relative_to(one.data)]
    return max(holding, key=lambda one: len(one.data.parts), default=environments[0])


def _erase_in_registry(
    environments: Sequence[Environment], project: Path, quotes: Quotes, result: Erasure
) -> None:
    for tracking in {one.tracking.model_dump_json(): one.tracking for one in environments}.values():
        try:
            erased, missed = erase_reports(tracking, project, quotes.in_text)
        except RpoError as err:
            result.miss(f"reports of MLflow runs and versions: {err}")
        else:
            result.erased += erased
            for place in missed:
                result.miss(place)


def _erase_text(file: Path, quotes: Quotes, result: Erasure) -> None:
    """Erase quotes of a prompt: the raw text of quarantined records, and reports."""
    if file.suffix == ".parquet":
        if set(pq.read_schema(file).names) == set(QUARANTINE_SCHEMA.names):
            table = pd.read_parquet(file)
            blanked = table["raw"].map(quotes.in_record).astype(bool)
            if count := int(blanked.sum()):
                _write(table.assign(raw=table["raw"].mask(blanked, "")), file)
            result.erased += [f"{file}: the text of {count} quarantined records"] if count else []
    elif file.suffix not in TEXTS or MODELS in file.parts:
        return
    elif quotes.in_text(file.read_text(errors="replace")):
        if file.suffix == ".html":
            file.resolve().unlink()  # the target of a link
            file.unlink(missing_ok=True)  # the link itself
            result.erased.append(f"{file}: removed; the next run writes it again")
        else:
            result.left.append(f"file that quotes it {file}")


def _erase_rows(file: Path, ids: set[str], row_ids: set[str], *, is_resumed: bool) -> int:
    columns = pq.read_schema(file).names
    if file.match(SHARDS) and "prompt_id" not in columns:
        file.unlink()  # earlier versions did not store the prompts of a shard
        return 1
    matches = name_matches(columns, prompt_ids=ids, row_ids=row_ids)
    if matches is None:
        return 0
    if {"origin", "split_point"} <= set(columns):
        _quarantine(file, matches, is_resumed=is_resumed)
    removed = take_out(file, matches)
    if removed and (file.parent / "job.json").is_file():
        # A training with other rows cannot be resumed.
        shutil.rmtree(file.parent / "checkpoints", ignore_errors=True)
    return removed


def _quarantine(rows: Path, matches: pc.Expression, *, is_resumed: bool) -> None:
    """Quarantine the records that leave a table of rows, as ``forgotten`` and without text."""
    places = [str(row["origin"]).rpartition(":") for row in find_rows(rows, matches)]
    if not places:
        return
    file = rows.with_name("quarantine.parquet")
    reason = Reason.FORGOTTEN.value
    lines = pd.DataFrame(
        {"origin": origin, "line": int(line), "reason": reason, "raw": ""}
        for origin, _, line in places
    )
    quarantine = pd.read_parquet(file)
    if is_resumed:  # records that the interrupted call has added are not added again
        there = quarantine[quarantine["reason"] == reason].groupby(["origin", "line"]).size()
        at = ["origin", "line"]
        before = pd.MultiIndex.from_frame(lines[at]).map(there.to_dict()).fillna(0)
        lines = lines[lines.groupby(at).cumcount().to_numpy() >= before.to_numpy()]
    if not lines.empty:
        _write(pd.concat([quarantine, lines], ignore_index=True), file)


def _write(quarantine: pd.DataFrame, file: Path) -> None:
    table = pa.Table.from_pandas(quarantine, QUARANTINE_SCHEMA, preserve_index=False)
    with replacing(file) as prepared:
        pq.write_table(table, prepared)


def _models(environment: Environment, project: Path) -> Iterator[str]:
    """Yield weights that may have been trained on a prompt."""
    for config in sorted((environment.data / MODELS).rglob("config.json")):
        yield f"weights {config.parent}"
    name = environment.model_name
    try:
        for version in registered_versions(environment.tracking, project, name):
            yield f"registered version {name} {version}"
    except RpoError as err:
        yield f"registered versions of {name}: {err}"
