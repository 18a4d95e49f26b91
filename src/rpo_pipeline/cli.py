"""The project's own ``kedro run``: the same options, and errors for people."""

import copy
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run

from rpo_pipeline.errors import RpoError
from rpo_pipeline.secrets import hide

# Of the operating system, of SQLite, and of a limit on files or users.
NO_SPACE = ("No space left on device", "database or disk is full", "Disk quota exceeded")


@click.group(name="rpo_pipeline")
def cli() -> None:
    """Commands of the project."""


class FriendlyRun(click.Command):
    """Runs a pipeline; an error that a user can mend is one message, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Run, and turn our errors into click's."""
        try:
            return super().invoke(ctx)
        except Exception as err:
            message = explain(err)
            if message is None:
                raise
            raise click.ClickException(hide(message)) from err


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
        error = error.__cause__ or error.__context__
    return None


def _with_our_runner(option: click.Parameter) -> click.Parameter:
    if option.name != "runner":
        return option
    changed = copy.copy(option)
    changed.default = "rpo_pipeline.runner.FreshnessRunner"
    return changed


# The packaged project looks it up by this name.
run = FriendlyRun(
    "run",
    params=[_with_our_runner(option) for option in kedro_run.params],
    callback=kedro_run.callback,
    help=kedro_run.help,
)
cli.add_command(run)
