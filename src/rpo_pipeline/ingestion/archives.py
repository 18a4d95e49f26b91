"""Compressed files as streams, which end with an error where they unpack without end."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading a damaged file raises."""

MAX_RATIO = 200
"""Times its size that a file may unpack to; logs reach 10 to 50."""
ALWAYS_ALLOWED = 2**30
"""Bytes that any file may unpack to, whatever its size."""


def _open_zstd(path: Path) -> Any:  # noqa: ANN401 (Arrow's type of a file)
    return pa.input_stream(str(path), compression="zstd")


COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
"""How a file is opened, by the last ending of its name."""


class _Bounded(io.RawIOBase):
    """A stream that stops, with an error, at what no log unpacks to."""

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
    """Open a file for reading, unpacked if its name says that it is compressed."""
    opening = COMPRESSIONS.get(path.suffix.lower())
    if opening is None:
        return path.open("rb")
    return io.BufferedReader(_Bounded(path, opening), io.DEFAULT_BUFFER_SIZE * 16)


def without_compression(name: str) -> str:
    """A file's name without the ending of its compression."""
    return next((name.removesuffix(end) for end in COMPRESSIONS if name.endswith(end)), name)
