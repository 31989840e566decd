"""How much of a user's file is taken into memory at once: a line of it, a row, or all of a table.

A small file may stand for a large one. So files are measured as they are unpacked, little by little, before anything is
made of them. Every fault is a `ValueError` that says what is too large, and what to do.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TextIO

LONGEST_LINE = 2**24
"""Characters of a line of a text or table, and of a row of several lines; bytes of a text in parquet."""
MOST_COLUMNS = 10_000
SETTINGS_BYTES = 2**26
"""Of a file of settings, which is read whole."""
LARGEST = 2**40
"""Bytes of a table where the system does not say how much memory there is."""
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
CELL_BYTES, ROW_BYTES = 8, 64
"""What a cell and a row of a table take in memory beside their text, at the least."""


@cache
def largest_table() -> int:
    """Bytes of the largest table that is held in memory: half of what the machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return LARGEST


def check_table_size(size: int) -> None:
    """Raise for a table of so many bytes, unpacked, that this machine's memory does not hold it."""
    if size > (most := largest_table()):
        raise ValueError(
            f"unpacks to more than {most} bytes, half of this machine's memory; take fewer rows, or a larger machine"
        )


def check_size(path: Path, most: int = SETTINGS_BYTES) -> None:
    """Raise for a file that is larger than one of its kind can be, before it is read whole."""
    if (size := path.stat().st_size) > most:
        raise ValueError(f"has {size} bytes, and such a file at most {most}; make it smaller")


def check_ordinary(path: Path) -> None:
    """Raise `OSError` for what is no file of the disk: it may have no end, and what it gives can be read only once."""
    if (kind := _kind(path)) is not None:
        raise OSError(errno.EINVAL, f"it is {kind}", str(path))


def is_there(path: Path) -> bool:
    """Whether a file that may be left out is there. Raises `OSError` for anything else of its name."""
    if not os.path.lexists(path):
        return False
    check_ordinary(path)
    return True


def no_file(path: Path) -> str:
    """The beginning of a sentence on a path where a file was expected."""
    try:
        kind = _kind(path)
    except (OSError, ValueError):
        kind = None
    return f"there is no file {path}" if kind is None else f"{path} is {kind}"


def _kind(path: Path) -> str | None:
    """What is there instead of a file."""
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "a device")


class Lines:
    """The lines of a stream, none longer than `LONGEST_LINE`: more of it is never read.

    A row of a table may have several lines; `begin_row` tells that the next one begins.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._number, self._start, self._used = stream, 0, 1, 0
        self.characters = 0
        """Of all lines so far."""

    def begin_row(self) -> None:
        self._start, self._used = self._number + 1, 0

    def __iter__(self) -> Iterator[str]:
        read = self._stream.readline
        while line := read(LONGEST_LINE + 1):
            self._number += 1
            self._used += len(line)
            self.characters += len(line)
            if self._used > LONGEST_LINE:
                raise ValueError(
                    f"line {self._start} is longer than {LONGEST_LINE} characters; break it up, or take it out"
                )
            yield line


def lines(stream: TextIO) -> Iterator[str]:
    """The lines of a stream. Raises for one longer than `LONGEST_LINE`, as soon as that much of it was read."""
    bounded = Lines(stream)
    for line in bounded:
        bounded.begin_row()
        yield line


def check_json_lines(stream: TextIO, parse: Callable[[str, int], dict[str, Any]]) -> None:
    """Raise for objects of which the table would be too large; `parse` gives that of a line, or raises itself."""
    bounded, names, count = Lines(stream), set[int](), 0
    for number, line in enumerate(bounded, start=1):
        bounded.begin_row()
        if line.strip():
            count += 1
            # The names themselves may be long.
            names.update(map(hash, parse(line, number)))
            if len(names) > MOST_COLUMNS:
                raise ValueError(f"line {number} brings the keys to more than {MOST_COLUMNS}; leave most of them out")
            check_table_size(bounded.characters + count * (ROW_BYTES + CELL_BYTES * len(names)))
