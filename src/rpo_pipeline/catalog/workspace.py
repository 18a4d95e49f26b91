from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from rpo_pipeline.storage import ensure_folder


class WorkspaceDataset(AbstractDataset[NoReturn, Path]):
    """A folder for the files of a node while it runs.

    The tracking hook logs the lines that a node appends to ``metrics.jsonl`` in it.

    Args:
        filepath: Path of the folder, which is created when it is first loaded.
        metadata: Values for plugins such as kedro-viz.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Create the folder unless it exists.

        Returns:
            Path of the folder.

        Raises:
            DataError: If it does not exist and cannot be created.
        """
        ensure_folder(self.path)
        return self.path

    def save(self, data: NoReturn) -> None:  # noqa: ARG002 (nothing can be saved)
        """Do nothing, because the node itself writes to the folder."""
        raise DatasetError(f"{self.path} is a workspace: an input of a node, never its output")

    def _exists(self) -> bool:
        return self.path.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self.path.as_posix()}
