"""``python -m rpo_pipeline`` and ``rpo-pipeline``: the commands of ``cli``."""

from kedro.framework.project import configure_project

from rpo_pipeline.cli import cli


def main() -> None:
    """Run the command that the process was called with."""
    configure_project("rpo_pipeline")
    cli()


if __name__ == "__main__":
    main()
