import atexit
import logging
import stat
from copy import deepcopy
from pathlib import Path
from threading import RLock
from typing import Any, Literal
from weakref import WeakKeyDictionary

from kedro.io import AbstractDataset
from kedro.io.core import parse_dataset_definition

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage import first_line, replacing

logger = logging.getLogger(__name__)

LAZY = "ibis."
"""Prefix of the types of datasets that load a plan to read the file, not its content."""
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
            message = f"{self._filepath} cannot be read ({self._reason(err)}): {self._remedy}"
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

    def _reason(self, err: Exception) -> str:
        """Return the message of the reader itself, without the text that Kedro adds."""
        return first_line(err if err.__cause__ is None else err.__cause__)

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write a complete file, or leave the old one as it was."""
        with replacing(self._filepath) as prepared, _ONE_CONNECTION:
            self._inner(prepared).save(data)

    def _inner(self, path: Path) -> AbstractDataset[Any, Any]:
        definition = {**deepcopy(self._definition), "filepath": path.as_posix()}
        dataset_class, arguments = parse_dataset_definition(definition)
        return dataset_class(**arguments)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "dataset": self._definition.get("type")}
