"""``python -m rpo_pipeline``: our subcommands, and anything else to Kedro's packaged run."""

import codecs
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project

if TYPE_CHECKING:
    from rpo_pipeline.operations import ExportFormat, Refresh
    from rpo_pipeline.tracking import TrackedRun

NOTHING_TO_DO = 99
"""Exit code that Airflow takes as skipped."""
FEEDBACK = "03_primary/feedback.parquet"
"""In the data folder of an environment."""
# As `kedro run` has it; the default is that of settings.py, which imports more.
ENV = click.option(
    "--env", envvar="KEDRO_ENV", default="sample", show_default=True, help="Environment of conf/."
)


@click.group()
def commands() -> None:
    """Commands that need no Kedro run."""


@commands.command("sample-data")
@click.option("--rows", type=click.IntRange(min=1), help="Lines to write; all of 400 tickets.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("data/01_raw/feedback.jsonl"),
    show_default=True,
)
def sample_data(rows: int | None, seed: int, output: Path) -> None:
    """Write the feedback log of a made-up support desk."""
    from rpo_pipeline.ingestion import write_sample_data

    written = write_sample_data(output, rows, seed)
    click.echo(f"{written['lines']} lines of {written['tickets']} tickets in {output}")


@commands.command("export")
@click.option("--format", "export_format", type=click.Choice(["trl_kto", "trl_dpo"]), required=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--feedback",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Table of a run; that of the environment.",
)
@click.option("--split", default="train", show_default=True)
@ENV
def export(
    export_format: "ExportFormat", output: Path, feedback: Path | None, split: str, env: str
) -> None:
    """Write rated feedback as TRL reads it: unpaired rows for KTO, pairs for DPO."""
    from rpo_pipeline.operations import export_feedback, read_environment, read_feedback

    with _errors_for_people():
        file = feedback or read_environment(_project(), env).data / FEEDBACK
        lines = export_feedback(read_feedback(file), output, export_format, split=split)
    click.echo(f"{lines} lines in {output}")


@commands.command("forget")
@click.option("--prompt-id", "prompt_ids", multiple=True, help="Of the tables; may be repeated.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="One prompt_id a line.",
)
def forget(prompt_ids: tuple[str, ...], file: Path | None) -> None:
    """Erase prompts from data, caches, samples, quarantine and reports, in every environment.

    Without a prompt, an erasure that was interrupted is finished.
    """
    from rpo_pipeline.erasure import forget

    given = {*prompt_ids, *(_words_of(file) if file else ())}
    wrong = sorted(one for one in given if not re.fullmatch("[0-9a-fA-F]{32}", one))
    if wrong:
        raise click.UsageError(
            f"a prompt_id is 32 hexadecimal digits, got {', '.join(wrong)} "
            "(--prompt-id, --file; the column prompt_id of data/03_primary/feedback.parquet)"
        )
    with _errors_for_people():
        result = forget({one.lower() for one in given}, _project())
    for line in result.erased or ["nothing was found; should it come in again, it is dropped"]:
        click.echo(f"erased  {line}")
    for line in result.left:
        click.echo(f"left    {line}")
    if not result.is_complete:
        raise click.ClickException(
            "not everything could be looked into: mend what is named above, and run "
            "`python -m rpo_pipeline forget` again, which goes on from there"
        )


@commands.command("clean-cache")
def clean_cache() -> None:
    """Remove every cached log-probability, sample and label."""
    from rpo_pipeline.operations import read_environments
    from rpo_pipeline.storage import prune_cache

    with _errors_for_people():
        environments, faults = read_environments(_project())
        caches = {environment.cache for environment in environments}
    for cache in sorted(caches):
        pruned = prune_cache(cache, max_bytes=0, max_age_days=0, in_use_since=math.inf)
        click.echo(f"{cache}: {pruned.num_shards} files, {pruned.num_bytes / 1e6:.1f} MB removed")
    if faults:
        raise click.ClickException("; ".join(faults))


@commands.command("doctor")
@ENV
def doctor(env: str) -> None:
    """Check what a run needs, one line each; exit code 1 if something failed."""
    from rpo_pipeline.operations import examine

    failed = False
    for finding in examine(_project(), env):
        click.echo(finding)
        failed |= finding.state == "failed"
    sys.exit(failed)


@commands.command("open-run")
@ENV
@click.option("--refresh", is_flag=True, help="First decide whether there is work for one.")
def open_run(env: str, refresh: bool) -> None:
    """Open an MLflow run that several `kedro run` join, and print its id as the last line.

    Exit code 99, which Airflow takes as skipped: there is nothing to do.
    """
    from rpo_pipeline.operations import BusyError
    from rpo_pipeline.tracking import JOINED_RUN

    with _errors_for_people():
        _work_in_project(env)
        try:
            has_work = not refresh or _refresh(env).begin()
        except BusyError as err:  # which does what this run was to do
            click.echo(f"nothing to do: {err}", err=True)
            has_work = False
    if not has_work:
        sys.exit(NOTHING_TO_DO)
    run = _tracked_run(env, None)
    run.set_tags({"mlflow.runName": "refresh"})
    run.leave()
    click.echo(f"{JOINED_RUN} of those who join it:")
    click.echo(run.run_id)


@commands.command("close-run")
@click.argument("run_id")
@ENV
@click.option("--refresh", is_flag=True, help="Tell how the refresh went.")
@click.option("--failed", is_flag=True, help="It did not come to its end.")
def close_run(run_id: str, env: str, refresh: bool, failed: bool) -> None:
    """Close a run that `open-run` opened."""
    with _errors_for_people():
        _work_in_project(env)
    _tracked_run(env, run_id).finish("FAILED" if failed else "FINISHED")
    if not refresh:
        return
    with _errors_for_people():
        if failed:
            _refresh(env).fail(f"a stage of MLflow run {run_id} failed")
        else:
            _refresh(env).end()


def _words_of(file: Path) -> list[str]:
    """Words of a text file: UTF-8, or what its byte order mark says, as PowerShell writes it."""
    content = file.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig").split()
    except UnicodeDecodeError:
        raise click.UsageError(
            f"{file} is no text in UTF-8: --file takes a list of one prompt_id a line"
        ) from None


def _refresh(env: str) -> "Refresh":
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from rpo_pipeline.operations import Refresh

    bootstrap_project(_project())
    return Refresh(KedroSession.create(env=env).load_context())


def _work_in_project(env: str) -> None:
    """As a run does, until the command ends."""
    from rpo_pipeline.operations import read_environment
    from rpo_pipeline.storage import working_in

    data = read_environment(_project(), env).data
    click.get_current_context().with_resource(working_in(_project(), data))


def _tracked_run(env: str, run_id: str | None) -> "TrackedRun":
    from rpo_pipeline.operations import read_environment
    from rpo_pipeline.tracking import OUTBOXES, TrackedRun

    project = _project()
    with _errors_for_people():
        own = read_environment(project, env)
        return TrackedRun(own.tracking, project, own.data / OUTBOXES, run_id=run_id)


def _project() -> Path:
    """The project's folder, from any folder in it; the current one where there is none."""
    from kedro.utils import find_kedro_project

    return find_kedro_project(Path.cwd()) or Path.cwd()


@contextmanager
def _errors_for_people() -> Iterator[None]:
    from rpo_pipeline.errors import RpoError

    try:
        yield
    except RpoError as err:
        raise click.ClickException(str(err)) from err


def main() -> None:
    """Dispatch."""
    if len(sys.argv) > 1 and sys.argv[1] in commands.commands:
        commands()
    else:
        configure_project("rpo_pipeline")
        find_run_command("rpo_pipeline")()


if __name__ == "__main__":
    main()
