from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError


class ParquetStreamDataset(AbstractDataset[pa.RecordBatchReader, NoReturn]):
    """A Parquet file that is written batch by batch, and read through another catalog entry.

    Args:
        filepath: Path of the file.
    """

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
