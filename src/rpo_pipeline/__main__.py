"""``python -m rpo_pipeline``: our subcommands, and anything else to Kedro's packaged run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project

if TYPE_CHECKING:
    from rpo_pipeline.data.export import ExportFormat


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
    from rpo_pipeline.data.sample_data import write_sample_data

    written = write_sample_data(output, rows, seed)
    click.echo(f"{written['lines']} lines of {written['tickets']} tickets in {output}")


@commands.command("export")
@click.option("--format", "export_format", type=click.Choice(["trl_kto", "trl_dpo"]), required=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--feedback",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    default=Path("data/03_primary/feedback.parquet"),
    show_default=True,
)
@click.option("--split", default="train", show_default=True)
def export(export_format: "ExportFormat", output: Path, feedback: Path, split: str) -> None:
    """Write rated feedback as TRL reads it: unpaired rows for KTO, pairs for DPO."""
    import pandas as pd

    from rpo_pipeline.data.export import export_feedback
    from rpo_pipeline.errors import RpoError

    try:
        lines = export_feedback(pd.read_parquet(feedback), output, export_format, split=split)
    except RpoError as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{lines} lines in {output}")


def main() -> None:
    """Dispatch."""
    if len(sys.argv) > 1 and sys.argv[1] in commands.commands:
        commands()
    else:
        configure_project("rpo_pipeline")
        find_run_command("rpo_pipeline")()


if __name__ == "__main__":
    main()
