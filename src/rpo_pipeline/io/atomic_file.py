import atexit
from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from kedro.io import AbstractDataset, DatasetError
from kedro.io.core import parse_dataset_definition

from rpo_pipeline.io.durable import put_in_place, temporary_sibling

LAZY = "ibis."
"""Type of datasets whose data are a plan to read the file, not what is in it."""
_PLANS: WeakKeyDictionary["AtomicFileDataset", tuple[tuple[int, int, int], Any]] = (
    WeakKeyDictionary()
)
# DuckDB complains of connections that outlive the interpreter, as they do after an error.
atexit.register(_PLANS.clear)


class AtomicFileDataset(AbstractDataset[Any, Any]):
    """Any single-file dataset, written under a temporary name and renamed when complete.

    Example of a catalog entry::

        rewards:
          type: rpo_pipeline.io.AtomicFileDataset
          filepath: data/04_feature/rewards.parquet
          dataset: {type: pandas.ParquetDataset}

    Args:
        filepath: The file.
        dataset: Definition of the dataset that reads and writes it, without a file path.
        missing_ok: Load None, rather than fail, while there is no file.
        metadata: For plugins such as kedro-viz.
    """

    def __init__(
        self,
        *,
        filepath: str,
        dataset: dict[str, Any],
        missing_ok: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._definition = dataset
        self._missing_ok = missing_ok
        self.metadata = metadata

    def load(self) -> Any:  # noqa: ANN401 (whatever the inner dataset loads)
        """Load the file; None if it is missing and may be.

        A lazy table is the same one for as long as the file is: its validator knows it again.
        """
        if not self._exists():
            if self._missing_ok:
                return None
            raise DatasetError(f"{self._filepath} does not exist; run the pipeline that writes it")
        if not self._definition["type"].startswith(LAZY):
            return self._inner(self._filepath).load()
        found = self._filepath.stat()
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self not in _PLANS or _PLANS[self][0] != version:
            _PLANS[self] = (version, self._inner(self._filepath).load())
        return _PLANS[self][1]

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write a complete file, or leave the old one as it was."""
        prepared = temporary_sibling(self._filepath)
        try:
            self._inner(prepared).save(data)
            put_in_place(prepared, self._filepath)
        finally:
            prepared.unlink(missing_ok=True)

    def _inner(self, path: Path) -> AbstractDataset[Any, Any]:
        definition = {**deepcopy(self._definition), "filepath": path.as_posix()}
        dataset_class, arguments = parse_dataset_definition(definition)
        return dataset_class(**arguments)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "dataset": self._definition.get("type")}
