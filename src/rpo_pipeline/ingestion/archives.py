"""Compressed files are opened as streams that refuse to unpack without limit."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""Errors that reading a damaged file raises."""

MAX_RATIO = 200
"""Largest ratio of unpacked to compressed size; logs reach 10 to 50."""
ALWAYS_ALLOWED = 2**30
"""Bytes that a file of any size may unpack to."""


COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": partial(pa.input_stream, compression="zstd"),
}
"""Function that opens a file, by the last ending of the file's name."""


class _Bounded(io.RawIOBase):
    """A stream that raises ``OSError`` when it has unpacked more than any log would."""

    def __init__(self, path: Path, opening: Callable[[Path], Any]) -> None:
        self.name = str(path)
        self._stream = opening(path)
        self._size = size = path.stat().st_size
        self._left = max(ALWAYS_ALLOWED, MAX_RATIO * size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (what RawIOBase takes)
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise OSError(
                f"a file of {self._size:,} bytes unpacks to more than {MAX_RATIO} times its size"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading; it is unpacked if its name says that it is compressed."""
    opening = COMPRESSIONS.get(path.suffix.lower())
    if opening is None:
        return path.open("rb")
    return io.BufferedReader(_Bounded(path, opening), io.DEFAULT_BUFFER_SIZE * 16)


def without_compression(name: str) -> str:
    """Remove the ending of the compression from a file's name."""
    return next((name.removesuffix(end) for end in COMPRESSIONS if name.endswith(end)), name)
