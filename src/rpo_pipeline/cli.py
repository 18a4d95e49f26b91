"""The commands of the project: ``kedro NAME`` in its folder, ``rpo-pipeline NAME`` anywhere in it.

An error that a user can correct is one message, not a traceback.
"""

import codecs
import copy
import errno
import math
import re
import sys
import traceback
from pathlib import Path
from typing import Any, get_args

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError
from kedro.utils import find_kedro_project

from rpo_pipeline.catalog import LOADER_ARGUMENTS, refuse_several
from rpo_pipeline.errors import RpoError
from rpo_pipeline.operations import (
    NAMED_BY,
    BusyError,
    Environment,
    ExportFormat,
    Refresh,
    examine,
    export_feedback,
    read_environment,
    read_environments,
    read_feedback,
)
from rpo_pipeline.secrets import hide
from rpo_pipeline.storage import prune_cache, working_in

# Messages of the operating system, of SQLite, and of a limit on files or users.
NO_SPACE = ("No space left on device", "database or disk is full", "Disk quota exceeded")
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
NOTHING_TO_DO = 99
"""Exit code that Airflow takes as skipped."""
FEEDBACK = "03_primary/feedback.parquet"
"""Path of the feedback in the data folder of an environment."""

TELLS = f"{NAMED_BY}, `kedro catalog describe-datasets` the datasets"
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, exists=True, path_type=Path)
ENV = click.option(
    "--env",
    envvar="KEDRO_ENV",
    default=LOADER_ARGUMENTS["default_run_env"],
    show_default=True,
    help="Environment of conf/.",
)


class FriendlyCommand(click.Command):
    """A command that reports errors that users can correct as messages."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Run the command, and convert the project's errors to click's."""
        try:
            return super().invoke(ctx)
        except Exception as err:
            message = explain(err)
            if message is None:
                raise
            raise click.ClickException(hide(message)) from err


class ProjectCommands(click.Group):
    """A group in which options without a command are those of ``run``, as Kedro packages it."""

    command_class = FriendlyCommand

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without a command, the command is ``run``."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(name="rpo_pipeline", cls=ProjectCommands)
def cli() -> None:
    """Commands of the project."""


@cli.command("sample-data")
@click.option("--rows", type=click.IntRange(min=1), help="Lines to write; all of 400 tickets.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--output", type=NEW_FILE, default=Path("data/01_raw/feedback.jsonl"), show_default=True
)
def sample_data(rows: int | None, seed: int, output: Path) -> None:
    """Write the feedback log of a made-up support desk."""
    from rpo_pipeline.ingestion import write_sample_data

    written = write_sample_data(output, rows, seed)
    click.echo(f"{written['lines']} lines of {written['tickets']} tickets in {output}")


@cli.command("export")
@click.option("--format", "export_format", type=click.Choice(get_args(ExportFormat)), required=True)
@click.option("--output", type=NEW_FILE, required=True)
@click.option("--feedback", type=FILE, help="Table of a run; that of the environment.")
@click.option("--split", default="train", show_default=True)
@ENV
def export(
    export_format: ExportFormat, output: Path, feedback: Path | None, split: str, env: str
) -> None:
    """Write rated feedback as TRL reads it: unpaired rows for KTO, pairs for DPO."""
    file = feedback or read_environment(_project(), env).data / FEEDBACK
    lines = export_feedback(read_feedback(file), output, export_format, split=split)
    click.echo(f"{lines} lines in {output}")


@cli.command("forget")
@click.option("--prompt-id", "prompt_ids", multiple=True, help="Of the tables; may be repeated.")
@click.option("--file", type=FILE, help="One prompt_id a line.")
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
    result = forget({one.lower() for one in given}, _project())
    for line in result.erased or ["nothing was found; should it come in again, it is dropped"]:
        click.echo(f"erased  {line}")
    for line in result.left:
        click.echo(f"left    {line}")
    if not result.is_complete:
        raise click.ClickException(
            "not everything could be looked into: mend what is named above, and run "
            "`kedro forget` again, which goes on from there"
        )


@cli.command("clean-cache")
def clean_cache() -> None:
    """Remove every cached log-probability, sample and label."""
    environments, faults = read_environments(_project())
    for cache in sorted({environment.cache for environment in environments}):
        pruned = prune_cache(cache, max_bytes=0, max_age_days=0, in_use_since=math.inf)
        click.echo(f"{cache}: {pruned.num_shards} files, {pruned.num_bytes / 1e6:.1f} MB removed")
    if faults:
        raise click.ClickException("; ".join(faults))


@cli.command("doctor")
@ENV
def doctor(env: str) -> None:
    """Check what a run needs, one line each; exit code 1 if something failed."""
    failed = False
    for finding in examine(_project(), env):
        click.echo(finding)
        failed |= finding.state == "failed"
    sys.exit(failed)


@cli.command("open-run")
@ENV
@click.option("--refresh", is_flag=True, help="First decide whether there is work for one.")
def open_run(env: str, refresh: bool) -> None:
    """Open an MLflow run that several `kedro run` join, and print its id as the last line.

    Exit code 99, which Airflow takes as skipped, means that there is nothing to do.
    """
    from rpo_pipeline.tracking import JOINED_RUN, OUTBOXES, TrackedRun

    own = _enter(env)
    try:
        has_work = not refresh or _refresh(env).begin()
    except BusyError as err:  # the other run does this work
        click.echo(f"nothing to do: {err}", err=True)
        has_work = False
    if not has_work:
        sys.exit(NOTHING_TO_DO)
    run = TrackedRun(own.tracking, _project(), own.data / OUTBOXES)
    run.set_tags({"mlflow.runName": "refresh"})
    run.leave()
    click.echo(f"{JOINED_RUN} of those who join it:")
    click.echo(run.run_id)


@cli.command("close-run")
@click.argument("run_id")
@ENV
@click.option("--refresh", is_flag=True, help="Tell how the refresh went.")
@click.option("--failed", is_flag=True, help="It did not come to its end.")
def close_run(run_id: str, env: str, refresh: bool, failed: bool) -> None:
    """Close a run that `open-run` opened."""
    from rpo_pipeline.tracking import OUTBOXES, TrackedRun

    own = _enter(env)
    run = TrackedRun(own.tracking, _project(), own.data / OUTBOXES, run_id=run_id)
    run.finish("FAILED" if failed else "FINISHED")
    if refresh and failed:
        _refresh(env).fail(f"a stage of MLflow run {run_id} failed")
    elif refresh:
        _refresh(env).end()


def run_pipelines(**chosen: Any) -> dict[str, Any]:  # noqa: ANN401 (the options of Kedro's run)
    """Run pipelines as Kedro does, in the session of settings.py."""
    refuse_several(chosen["runner"])
    if chosen["conf_source"]:  # relative to the folder of the call
        chosen["conf_source"] = str(Path(chosen["conf_source"]).resolve())
    assert kedro_run.callback is not None
    result: dict[str, Any] = kedro_run.callback(**chosen)
    return result


def _with_our_runner(option: click.Parameter) -> click.Parameter:
    if option.name != "runner":
        return option
    changed = copy.copy(option)
    changed.default = "rpo_pipeline.catalog.runner.FreshnessRunner"
    return changed


# The packaged project looks up its command by this name.
run = FriendlyCommand(
    "run",
    params=[_with_our_runner(option) for option in kedro_run.params],
    callback=run_pipelines,
    help=kedro_run.help,
)
cli.add_command(run)


def explain(error: BaseException | None) -> str | None:
    """Return the message of the first error in a chain that is meant for users, if there is one."""
    while error is not None:
        if isinstance(error, RpoError):
            return str(error)
        if any(words in str(error) for words in NO_SPACE):
            return (
                f"there is no space left: {error}. Nothing that was complete is lost; make room, "
                "and the same `kedro run` goes on from there"
            )
        if isinstance(error, OSError) and error.errno in NOT_ALLOWED and error.filename:
            return f"{error.filename} cannot be read or written: {error.strerror}"
        if error.__cause__ is None and _is_of_kedro(error):
            return f"{' '.join(str(error).split()).rstrip('.')} ({TELLS})"
        error = error.__cause__ or error.__context__
    return None


def _is_of_kedro(error: BaseException) -> bool:
    """Tell whether Kedro refuses its options because they name something that does not exist."""
    if not isinstance(error, ValueError | LookupError | DatasetError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = str(frames[-1].f_globals.get("__name__")) if frames else ""
    return raised_in.startswith(("kedro.framework.", "kedro.pipeline.", "kedro.io."))


def _words_of(file: Path) -> list[str]:
    """Read the words of a text file: UTF-8, or as its byte order mark says (PowerShell's files)."""
    content = file.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig").split()
    except UnicodeDecodeError:
        raise click.UsageError(
            f"{file} is no text in UTF-8: --file takes a list of one prompt_id a line"
        ) from None


def _refresh(env: str) -> Refresh:
    bootstrap_project(_project())
    return Refresh(KedroSession.create(env=env).load_context())


def _enter(env: str) -> Environment:
    """Return an environment, and work in its project's folder until the command ends."""
    own = read_environment(_project(), env)
    click.get_current_context().with_resource(working_in(_project(), own.data))
    return own


def _project() -> Path:
    """Find the project's folder from any folder in it; outside, return the current folder."""
    return find_kedro_project(Path.cwd()) or Path.cwd()
