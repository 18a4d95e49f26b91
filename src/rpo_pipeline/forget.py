"""Erasing prompts on request, from everything that the project made of them.

Files are known by what is in them, not by name: a table that names prompts or rows loses those, a
report that quotes a prompt goes. So what a new pipeline stores is covered as well.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rpo_pipeline.data.quarantine import QUARANTINE_SCHEMA, Reason
from rpo_pipeline.data.quotes import Quotes
from rpo_pipeline.environments import Environment, read_environments
from rpo_pipeline.io.durable import put_in_place, temporary_sibling
from rpo_pipeline.io.erasure import Matches, column_names, find_rows, name_matches, take_out
from rpo_pipeline.io.row_store import SHARDS
from rpo_pipeline.refresh.lock import only_run, signature_of
from rpo_pipeline.registry.forgetting import erase_reports, registered_versions

SOURCES, MODELS = "01_raw", "06_models"
FORGOTTEN = Path("03_primary/forgotten.parquet")
TEXTS = {".html", ".json", ".jsonl", ".csv", ".txt", ".md"}


@dataclass
class Erasure:
    """What was erased, and what could not be."""

    erased: list[str] = field(default_factory=list)
    """Place and number of rows, for people."""
    left: list[str] = field(default_factory=list)
    """Places that still hold a prompt, or learned from it."""


@dataclass
class _Traces:
    """What the tables say of the prompts."""

    prompts: set[str] = field(default_factory=set)
    row_ids: set[str] = field(default_factory=set)
    origins: set[str] = field(default_factory=set)
    learned_in: set[str] = field(default_factory=set)
    """Environments in which a prompt was in train or validation."""


def forget(prompt_ids: Collection[str], project: Path) -> Erasure:
    """Erase prompts and all that was made of them, in every environment.

    They are remembered by their hashes first, so that no later run takes them in again; then what
    is found by their text goes, and the tables that hold the text last: an interrupted erasure can
    be run again.

    Args:
        prompt_ids: As the tables name them.
        project: The project's folder.

    Returns:
        What was found where, and what only a person can erase.

    Raises:
        BusyError: If a run is at work, which could take in what is to go.
    """
    environments = read_environments(project)
    with ExitStack() as held:
        for lock in sorted({one.lock for one in environments if one.lock.exists()}):
            held.enter_context(only_run(lock))
        return _forget(set(prompt_ids), project, environments)


def _forget(ids: set[str], project: Path, environments: Sequence[Environment]) -> Erasure:
    for data in {environment.data for environment in environments}:
        _remember(ids, data / FORGOTTEN)
    files = sorted(_files(environments))
    tables = [file for file in files if file.suffix == ".parquet" and file.name != FORGOTTEN.name]
    traces = _trace(ids, tables, environments)
    quotes = Quotes(ids, traces.prompts)
    result = Erasure()
    for file in files:
        _erase_text(file, quotes, result)
    for tracking in {one.tracking.model_dump_json(): one.tracking for one in environments}.values():
        result.erased += erase_reports(tracking, project, quotes.in_text)
    for file in reversed(tables):  # those with the text come first in their order
        count = _erase_rows(file, ids, traces.row_ids)
        result.erased += [f"{file}: {count} rows"] if count else []
    result.left += [f"source {origin}" for origin in sorted(traces.origins)]
    for environment in environments:
        if environment.name in traces.learned_in:
            result.left += _models(environment, project)
    prefix = f"{project}/"
    return Erasure(
        erased=[line.removeprefix(prefix) for line in result.erased],
        left=[line.replace(prefix, "", 1) for line in result.left],
    )


def _remember(ids: set[str], file: Path) -> None:
    known = set(pd.read_parquet(file)["prompt_id"]) if file.is_file() else set()
    if not ids <= known:
        prepared = temporary_sibling(file)
        table = pd.DataFrame({"prompt_id": sorted(known | ids)}, dtype="str")
        table.to_parquet(prepared, index=False)
        put_in_place(prepared, file)


def _files(environments: Sequence[Environment]) -> set[Path]:
    """What runs wrote; sources are not ours."""
    folders = {one.data for one in environments} | {one.cache for one in environments}
    signatures = {signature_of(one.lock) for one in environments}  # which quote our command
    return {
        file
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and SOURCES not in file.relative_to(folder).parts
    } - signatures


def _trace(ids: set[str], tables: Sequence[Path], environments: Sequence[Environment]) -> _Traces:
    traces = _Traces()
    for file in tables:
        columns = column_names(file)
        if "prompt_id" not in columns:
            continue
        matches = name_matches(["prompt_id"], prompt_ids=ids, row_ids=set())
        for row in find_rows(file, matches) if matches else []:
            if row.get("prompt"):
                traces.prompts.add(str(row["prompt"]))
            # Without its text, a row may be of another prompt: KTO pairs them.
            if row.get("prompt") and row.get("row_id"):
                traces.row_ids.add(str(row["row_id"]))
            if row.get("origin"):
                traces.origins.add(str(row["origin"]))
            if row.get("split") in ("train", "validation"):
                traces.learned_in.add(_owner(file, environments).name)
    return traces


def _owner(file: Path, environments: Sequence[Environment]) -> Environment:
    """The environment whose folder a file lies in; folders may lie in one another."""
    holding = [one for one in environments if file.is_relative_to(one.data)]
    return max(holding, key=lambda one: len(one.data.parts), default=environments[0])


def _erase_text(file: Path, quotes: Quotes, result: Erasure) -> None:
    """Erase what quotes a prompt: the raw text of quarantined records, and reports."""
    if file.suffix == ".parquet":
        if set(column_names(file)) == set(QUARANTINE_SCHEMA.names):
            count = _blank(file, quotes)
            result.erased += [f"{file}: the text of {count} quarantined records"] if count else []
    elif file.suffix not in TEXTS or MODELS in file.parts:
        return
    elif quotes.in_text(file.read_text(errors="replace")):
        if file.suffix == ".html":
            file.unlink()
            result.erased.append(f"{file}: removed; the next run writes it again")
        else:
            result.left.append(f"file that quotes it {file}")


def _blank(file: Path, quotes: Quotes) -> int:
    table = pd.read_parquet(file)
    blanked = table["raw"].map(quotes.in_record).astype(bool)
    if blanked.any():
        _write(table.assign(raw=table["raw"].mask(blanked, "")), file)
    return int(blanked.sum())


def _erase_rows(file: Path, ids: set[str], row_ids: set[str]) -> int:
    columns = column_names(file)
    if file.match(SHARDS) and "prompt_id" not in columns:
        file.unlink()  # of a version that did not say whose rows they are
        return 1
    matches = name_matches(columns, prompt_ids=ids, row_ids=row_ids)
    if matches is None:
        return 0
    if {"origin", "split_point"} <= set(columns):
        _quarantine(file, matches)
    removed = len(take_out(file, matches))
    if removed and (file.parent / "job.json").is_file():
        # It could not be gone on with: its rows are others now.
        shutil.rmtree(file.parent / "checkpoints", ignore_errors=True)
    return removed


def _quarantine(rows: Path, matches: Matches) -> None:
    """Account for the records that leave a table of rows as read: ``forgotten``, without text."""
    places = [str(row["origin"]).rpartition(":") for row in find_rows(rows, matches)]
    if not places:
        return
    file = rows.with_name("quarantine.parquet")
    lines = [
        {"origin": origin, "line": int(line), "reason": Reason.FORGOTTEN.value, "raw": ""}
        for origin, _, line in places
    ]
    _write(pd.concat([pd.read_parquet(file), pd.DataFrame(lines)], ignore_index=True), file)


def _write(quarantine: pd.DataFrame, file: Path) -> None:
    prepared = temporary_sibling(file)
    table = pa.Table.from_pandas(quarantine, QUARANTINE_SCHEMA, preserve_index=False)
    pq.write_table(table, prepared)
    put_in_place(prepared, file)


def _models(environment: Environment, project: Path) -> Iterator[str]:
    """Weights that may have learned from a prompt."""
    for config in sorted((environment.data / MODELS).rglob("config.json")):
        yield f"weights {config.parent}"
    name = environment.model_name
    for version in registered_versions(environment.tracking, project, name):
        yield f"registered version {name} {version}"
