"""Datasets of the catalog: files and folders that are written whole, and what their entries say."""

import atexit
import logging
import shutil
import stat
from pathlib import Path
from threading import RLock
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, CatalogProtocol, DatasetError
from kedro.io.core import parse_dataset_definition
from kedro_datasets.json import JSONDataset

from rpo_pipeline import records
from rpo_pipeline.errors import DataError, ModelError
from rpo_pipeline.storage import ensure_folder, first_line, replacing

logger = logging.getLogger(__name__)

LAZY = "ibis."
"""Prefix of the types of datasets that load a plan to read the file, not its content."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_PLANS: WeakKeyDictionary["AtomicFileDataset", tuple[tuple[int, int, int], Any]] = (
    WeakKeyDictionary()
)
# DuckDB's connection is not thread-safe, and `kedro run --async` loads and saves in threads.
_ONE_CONNECTION = RLock()
# DuckDB complains of connections that outlive the interpreter, as they do after an error.
atexit.register(_PLANS.clear)


class AtomicFileDataset(AbstractDataset[Any, Any]):
    """Wraps a single-file dataset: it is written under a temporary name and renamed when complete.

    Example of a catalog entry::

        rewards:
          type: rpo_pipeline.catalog.AtomicFileDataset
          filepath: data/04_feature/rewards.parquet
          dataset: {type: pandas.ParquetDataset}

    Args:
        filepath: Path of the file.
        dataset: Definition of the dataset that reads and writes it, without a file path.
        missing_ok: Whether to load None, instead of failing, while there is no file.
        if_damaged: Whether a file that cannot be read is an error, or counts as missing with a
            warning.
        remedy: Advice for a damaged file, or the effect of continuing without it.
        metadata: Values for plugins such as kedro-viz.
    """

    def __init__(
        self,
        *,
        filepath: str,
        dataset: dict[str, Any],
        missing_ok: bool = False,
        if_damaged: Literal["error", "missing"] = "error",
        remedy: str = "run the pipeline that writes it, which writes it again",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._definition = dataset
        self._missing_ok = missing_ok
        self._if_damaged = if_damaged
        self._remedy = remedy
        self.metadata = metadata

    def load(self) -> Any:  # noqa: ANN401 (whatever the inner dataset loads)
        """Load the file; the result is None if it is missing and ``missing_ok`` is true.

        A lazy table is the same object as long as the file does not change, so its validator
        recognises it.
        """
        if not self._filepath.exists() and not self._filepath.is_symlink():
            if self._missing_ok:
                return None
            raise DataError(f"{self._filepath} does not exist; run the pipeline that writes it")
        try:
            return self._read()
        except Exception as err:  # inner datasets raise errors of any type for damaged files
            said = first_line(err.__cause__ or err)  # without the text that Kedro adds
            message = f"{self._filepath} cannot be read ({said}): {self._remedy}"
            if self._if_damaged == "error":
                raise DataError(message) from err
            logger.warning(message)
            return None

    def _read(self) -> Any:  # noqa: ANN401
        found = self._filepath.stat()
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            raise DataError("it is empty" if stat.S_ISREG(found.st_mode) else "it is no file")
        if not self._definition["type"].startswith(LAZY):
            return self._inner(self._filepath).load()
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        with _ONE_CONNECTION:
            if self not in _PLANS or _PLANS[self][0] != version:
                _PLANS[self] = (version, self._inner(self._filepath).load())
            return _PLANS[self][1]

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write a complete file, or leave the old one as it was."""
        with replacing(self._filepath) as prepared, _ONE_CONNECTION:
            self._inner(prepared).save(data)

    def _inner(self, path: Path) -> AbstractDataset[Any, Any]:
        definition = {**self._definition, "filepath": path.as_posix()}
        dataset_class, arguments = parse_dataset_definition(definition)
        return dataset_class(**arguments)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "dataset": self._definition.get("type")}


class ParquetStreamDataset(AbstractDataset[pa.RecordBatchReader, NoReturn]):
    """A Parquet file that is written batch by batch, and read through another catalog entry."""

    def __init__(self, *, filepath: str) -> None:
        self._filepath = Path(filepath)

    def load(self) -> NoReturn:
        """Raise an error, because a transcoded entry, such as ``@ibis``, must read the file."""
        raise DatasetError(f"{self._filepath} is read through a transcoded catalog entry")

    def save(self, data: pa.RecordBatchReader) -> None:
        """Write every batch of a reader."""
        with pq.ParquetWriter(self._filepath, data.schema) as writer:
            for batch in data:
                writer.write_batch(batch)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix()}


class RecordDataset(JSONDataset):  # type: ignore[misc] # the package has no types
    """A frozen record, of a class in ``rpo_pipeline.records``, in a JSON file of its fields."""

    def __init__(self, *, record: str, **settings: Any) -> None:  # noqa: ANN401 (of another class)
        super().__init__(**settings)
        self._record = getattr(records, record)

    def load(self) -> Any:  # noqa: ANN401 (an instance of the record)
        """Load the record."""
        return records.from_json(self._record, super().load())

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write the record."""
        super().save(records.to_json(data))


class ModelDirectoryDataset(AbstractDataset[Path, Path]):
    """A Hugging Face model directory; nodes exchange its path, never the live model.

    While there is no model, loading fails, or loads None where ``missing_ok`` is true.
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


class WorkspaceDataset(AbstractDataset[NoReturn, Path]):
    """A folder for the files of a node while it runs.

    It is created when it is first loaded. The tracking hook logs the lines that a node appends to
    ``metrics.jsonl`` in it.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Create the folder unless it exists, and return its path."""
        ensure_folder(self.path)
        return self.path

    def save(self, data: NoReturn) -> None:  # noqa: ARG002 (nothing can be saved)
        """Do nothing, because the node itself writes to the folder."""
        raise DatasetError(f"{self.path} is a workspace: an input of a node, never its output")

    def _exists(self) -> bool:
        return self.path.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self.path.as_posix()}


def file_of(catalog: CatalogProtocol[Any, Any], name: str) -> Path | None:
    """Return the file or folder of a dataset, or None if it has none."""
    described: dict[str, Any] = catalog[name]._describe()  # Kedro has no public way to ask
    return Path(described["filepath"]) if described.get("filepath") else None


def use_in_mlflow(catalog: CatalogProtocol[Any, Any], name: str) -> Any:  # noqa: ANN401 (of YAML)
    """Return what MLflow stores of a dataset by its ``metadata``, or None for nothing."""
    return (getattr(catalog[name], "metadata", None) or {}).get("mlflow")
