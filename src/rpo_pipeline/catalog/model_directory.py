import shutil
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from rpo_pipeline.errors import DataError, ModelError
from rpo_pipeline.storage import replacing

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


class ModelDirectoryDataset(AbstractDataset[Path, Path]):
    """A Hugging Face model directory; nodes exchange its path, never the live model.

    Args:
        filepath: Path of the directory.
        missing_ok: Whether to load None, instead of failing, while there is no model.
        metadata: Values for plugins such as kedro-viz.
    """

    def __init__(
        self, *, filepath: str, missing_ok: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._missing_ok = missing_ok
        self.metadata = metadata

    def load(self) -> Path | None:  # type: ignore[override] # None only where missing_ok says so
        """Return the path of the directory."""
        if self._exists():
            return self._filepath
        if self._missing_ok:
            return None
        raise DataError(f"there is no model in {self._filepath}; run the pipeline that makes it")

    def save(self, data: Path) -> None:
        """Replace the directory by a copy of another one; the directory itself stays as it is."""
        if data.resolve() == self._filepath.resolve():
            return
        if not (data / "config.json").is_file():
            raise ModelError(f"{data} is no model directory: it has no config.json")
        pickled = [path.name for pattern in PICKLES for path in data.rglob(pattern)]
        if pickled:
            raise ModelError(f"{data} holds {pickled}: only safetensors weights are kept")
        with replacing(self._filepath) as prepared:
            shutil.copytree(data, prepared)

    def _exists(self) -> bool:
        return (self._filepath / "config.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix()}
