"""The project's own ``kedro run``: the same options, and errors for people."""

import copy
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError

from rpo_pipeline.errors import RpoError
from rpo_pipeline.secrets import hide

# Of the operating system, of SQLite, and of a limit on files or users.
NO_SPACE = ("No space left on device", "database or disk is full", "Disk quota exceeded")
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}

TELLS = (
    "`kedro registry list` names the pipelines, `kedro registry describe NAME` the nodes of one, "
    "`kedro catalog describe-datasets` the datasets"
)

SELECTIONS = (
    "tags node_names to_nodes from_nodes from_inputs to_outputs namespaces only_missing_outputs"
).split()
"""Options that leave out some of a pipeline."""
WHOLE: tuple[set[str], ...] = ({"refresh"}, {"__default__"}, set())


@click.group(name="rpo_pipeline")
def cli() -> None:
    """Commands of the project."""


class FriendlyRun(click.Command):
    """Runs a pipeline, alone in its data folder, and all of them only if there is work.

    An error that a user can mend is one message, not a traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Run, and turn our errors into click's."""
        try:
            self._invoke(ctx)
        except Exception as err:
            message = explain(err)
            if message is None:
                raise
            raise click.ClickException(hide(message)) from err

    def _invoke(self, ctx: click.Context) -> None:
        from kedro.framework.session import KedroSession

        from rpo_pipeline.catalog import refuse_several
        from rpo_pipeline.operations import BusyError, Refresh, only_run
        from rpo_pipeline.storage import working_in

        chosen = ctx.params
        refuse_several(chosen["runner"])
        if chosen["conf_source"]:  # named from where the command was called
            chosen["conf_source"] = str(Path(chosen["conf_source"]).resolve())
        session = KedroSession.create(
            env=chosen["env"], conf_source=chosen["conf_source"], runtime_params=chosen["params"]
        )
        context = session.load_context()
        data = context.project_path / context.config_loader["globals"]["data"]
        with working_in(context.project_path, data):
            refresh = Refresh(context)
            if not _is_whole(chosen):
                with only_run(refresh.lock):
                    super().invoke(ctx)
                return
            try:
                refresh.run(lambda: super(FriendlyRun, self).invoke(ctx))
            except BusyError as err:  # which does what this run was to do
                click.echo(f"nothing to do: {err}", err=True)


def _is_whole(chosen: Mapping[str, Any]) -> bool:
    """Whether a run is of all pipelines."""
    names = {*chosen["pipelines"], *([chosen["pipeline"]] if chosen["pipeline"] else [])}
    return names in WHOLE and not any(chosen[option] for option in SELECTIONS)


def explain(error: BaseException | None) -> str | None:
    """Message of the first error in a chain that is meant for people; None without one."""
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
    """Whether Kedro itself refuses what it was asked to run: its options name what there is not."""
    if not isinstance(error, ValueError | LookupError | DatasetError):
        return False
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    raised_in = str(place.tb_frame.f_globals.get("__name__")) if place else ""
    return raised_in.startswith(("kedro.framework.", "kedro.pipeline.", "kedro.io."))


def _with_our_runner(option: click.Parameter) -> click.Parameter:
    if option.name != "runner":
        return option
    changed = copy.copy(option)
    changed.default = "rpo_pipeline.catalog.runner.FreshnessRunner"
    return changed


# The packaged project looks it up by this name.
run = FriendlyRun(
    "run",
    params=[_with_our_runner(option) for option in kedro_run.params],
    callback=kedro_run.callback,
    help=kedro_run.help,
)
cli.add_command(run)
