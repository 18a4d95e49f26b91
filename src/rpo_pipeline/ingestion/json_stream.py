"""Splits a JSON file, a list or a sequence of values, into elements without loading it whole."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple, TextIO

PIECE = 2**13
"""Smallest number of characters to read at once; it doubles while an element is incomplete."""
NEAR_END = 16
"""A parse error within so many characters of the end may vanish when more is read."""
BETWEEN = re.compile(r"[\s,\ufeff]*")
BORDER = re.compile(r'[,}]\s*(?=\{\s*")')
"""Border before an element that does not begin a line."""

_decode = json.JSONDecoder().raw_decode


class Element(NamedTuple):
    """One element, not yet checked."""

    line: int
    """Line on which it starts, from 1."""
    text: str
    is_whole: bool
    """False for an element that is too long, of which only the start is kept."""


class ElementSplitter:
    """Cuts a JSON file into its elements, of each of which it holds ``limit`` characters in memory.

    After an element that is no JSON, the next one begins at the next line with the same indent or,
    if elements do not have lines of their own, at the next bracket that opens an object in a list.
    """

    def __init__(self, file: TextIO, limit: int) -> None:
        self.is_open = False
        """Whether a list was opened and not closed."""
        self.line = 1
        """Line of the next character."""
        self._file, self._limit = file, limit
        self._text, self._at, self._is_at_end = "", 0, False
        self._border = BORDER

    def __iter__(self) -> Iterator[Element]:
        """Yield the elements up to the end of the file."""
        self._skip_between()
        if self._next == "[":
            self.is_open = True
            self._take(self._at + 1)
            self._skip_between()
        while self._next:
            if self.is_open and self._next == "]":
                self.is_open = False
                self._take(self._at + 1)
            else:
                yield self._element()
            self._skip_between()

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    @property
    def _length(self) -> int:
        return len(self._text) - self._at

    def _element(self) -> Element:
        while True:
            start, end = self._at, self._end_of_value()
            if end is None and not self._is_at_end and self._length < self._limit:
                self._read_on()
            elif end:
                return Element(self.line, self._take(end), end - start <= self._limit)
            else:
                return self._broken(is_whole=end is not None)

    def _end_of_value(self) -> int | None:
        """Return where the value ends, 0 if it is broken, or None if more must be read to tell."""
        try:
            end = _decode(self._text, self._at)[1]
        except json.JSONDecodeError as err:
            is_open = err.msg.startswith("Unterminated string") or (
                err.pos > len(self._text) - NEAR_END
            )
            return None if is_open and not self._is_at_end else 0
        except (ValueError, RecursionError):  # a number too long, brackets too deep
            return 0
        return end if end < len(self._text) or self._is_at_end else None

    def _broken(self, *, is_whole: bool) -> Element:
        """Take the text before the next border; beyond the limit only its start is kept."""
        line, start = self.line, ""
        while not (match := self._border.search(self._text, self._at + 1)) and not self._is_at_end:
            if self._length > self._limit:
                start = start or self._text[self._at : self._at + self._limit]
                self._take(len(self._text) - PIECE)
            self._read_on()
        text = self._take(match.end() if match else len(self._text))
        if not match and self.is_open and text.rstrip().endswith("]"):
            self.is_open = False
            text = text.rstrip()[:-1]
        return Element(line, start or text.rstrip(), is_whole and not start)

    def _skip_between(self) -> None:
        """Skip commas and white space, and note the indent of the next element's line."""
        between = ""
        while True:
            match = BETWEEN.match(self._text, self._at)
            between = (between + self._take(match.end() if match else self._at))[-PIECE:]
            if self._length or self._is_at_end:
                break
            self._read_on()
        _, line_end, margin = between.rpartition("\n")
        if line_end:
            self._border = re.compile("\n" + re.escape(margin) + r"(?=[\[{])")

    def _take(self, end: int) -> str:
        taken = self._text[self._at : end]
        self._at = end
        self.line += taken.count("\n")
        return taken

    def _read_on(self) -> None:
        rest = self._text[self._at :]
        more = self._file.read(max(PIECE, len(rest)))
        self._text, self._at, self._is_at_end = rest + more, 0, not more
