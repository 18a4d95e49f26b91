from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from rpo_pipeline.storage import ensure_folder


class WorkspaceDataset(AbstractDataset[NoReturn, Path]):
    """A folder in which a long node keeps what it needs while it runs.

    A node that appends to ``metrics.jsonl`` in it is followed live by the tracking hook.

    Args:
        filepath: The folder, made when it is first asked for.
        metadata: For plugins such as kedro-viz.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Make the folder.

        Returns:
            Its path.

        Raises:
            DataError: If it is not there and cannot be made.
        """
        ensure_folder(self.path)
        return self.path

    def save(self, data: NoReturn) -> None:  # noqa: ARG002 (nothing can be saved)
        """A workspace is written by the node that works in it."""
        raise DatasetError(f"{self.path} is a workspace: an input of a node, never its output")

    def _exists(self) -> bool:
        return self.path.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self.path.as_posix()}
