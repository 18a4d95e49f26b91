"""The elements of a JSON file one by one: of a list, or of values that follow one another."""

import re
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, TextIO

PIECE = 2**16
"""Characters read at once, at most: a file may be a single line."""
OUTSIDE = re.compile(r'["\[\]{},]')
INSIDE = re.compile(r'\\(?:.|\Z)|"', re.DOTALL)


class Element(NamedTuple):
    """One element, not yet checked."""

    line: int
    """Where it starts, from 1."""
    text: str
    is_whole: bool
    """Whether all of the text is there: of one that is too long, only the start is kept."""


class ElementSplitter:
    """Cuts a JSON file at the borders of its elements by counting brackets outside of strings.

    After a bracket or quote too few, it goes on at the next line that starts as the first line of
    an element did, so that a broken element costs no other in files written line by line.

    Args:
        limit: Characters of one element that are held in memory.
    """

    def __init__(self, limit: int) -> None:
        self.is_open = False
        """Whether a list was opened and not closed."""
        self._limit = limit
        self._base = self._depth = 0
        self._in_string = self._seen_any = False
        self._skip = 0  # characters of the next piece that an escape swallows
        self._margin: str | None = None  # how the line of an element starts
        self._held: list[str] = []
        self._length = self._start = 0

    def split(self, file: TextIO) -> Iterator[Element]:
        """Read a file of text, whose line ends are kept, to its end."""
        line, starts_line = 1, True
        for piece in iter(partial(file.readline, PIECE), ""):
            yield from self._feed(
                piece.lstrip("\ufeff") if starts_line else piece, line, starts_line
            )
            starts_line = piece.endswith("\n")
            line += starts_line
        yield from self._cut()

    def _feed(self, piece: str, line: int, starts_line: bool) -> Iterator[Element]:
        begin, position, self._skip = 0, self._skip, 0
        if starts_line and self._held and self._margin and piece.startswith(self._margin):
            yield from self._cut()
            self._depth, self._in_string, position = self._base, False, 0
        while match := (INSIDE if self._in_string else OUTSIDE).search(piece, position):
            position, token = match.end(), match[0]
            if self._in_string:
                self._in_string = token != '"'
                self._skip = int(token == "\\")
            elif token == '"':
                self._in_string = True
            elif token in "[{":
                begin = self._go_in(piece, begin, match.start(), starts_line)
            else:
                end = self._go_out(token, match.start())
                if end is not None:
                    self._hold(piece[begin:end], line)
                    yield from self._cut()
                    begin = position
            self._seen_any = True
        self._hold(piece[begin:], line)
        if piece.endswith("\n") and self._depth == self._base and not self._in_string:
            yield from self._cut()

    def _go_in(self, piece: str, begin: int, at: int, starts_line: bool) -> int:
        """Take an opening bracket; where the element begins that is being read."""
        before = piece[:at]
        if piece[at] == "[" and not (self._seen_any or self._held or before.strip()):
            self._base = self._depth = 1
            self.is_open = True
            return at + 1
        if self._depth == self._base and self._margin is None and starts_line:
            self._learn_margin(before, piece[at:])
        self._depth += 1
        return begin

    def _go_out(self, token: str, at: int) -> int | None:
        """Take a closing bracket or a comma; where the element ends, if it does."""
        if self._depth == self._base:  # between elements, or at the end of the list
            self.is_open &= token != "]"
            return at
        self._depth -= token != ","
        return at + 1 if self._depth == self._base else None

    def _learn_margin(self, before: str, rest: str) -> None:
        if not before.strip():
            # Without indentation, the lines of an inner object start like those of an outer one.
            is_flat = not before and not rest[1:].strip()
            self._margin = "" if is_flat else before + rest[0]

    def _hold(self, text: str, line: int) -> None:
        if not self._held:
            text = text.lstrip()
            self._start = line
        if text:
            self._length += len(text)
            if self._length <= self._limit or not self._held:
                self._held.append(text)

    def _cut(self) -> Iterator[Element]:
        if self._held:
            text = "".join(self._held).rstrip()
            yield Element(self._start, text, self._length <= self._limit)
        self._held, self._length = [], 0
