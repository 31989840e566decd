"""What verbs print with, and the exit codes that they end with."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from distilbench.core.escape import visible, visible_lines

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from rich.console import Console

FINE, REGRESSED, WRONG_USE, COULD_NOT_EVALUATE, OUR_ERROR, INTERRUPTED = 0, 1, 2, 3, 70, 130
"""1 is for what a gate found, and for a method that does not conform; 70 for an error of distilbench itself."""


class VerdictCode(int):
    """An exit code that was the work to be done: it stands even if whoever read the output has stopped."""


class LastingStream:
    """A stream that cannot stop the work: what can no longer be written is dropped, and why is remembered."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()
        self.is_unread = stream is None
        """Whether it cannot be written for no other reason than that nobody reads it."""
        self.trouble = ", because stdout is closed" if stream is None else None
        """The end of a sentence on what could not be written."""
        if isinstance(stream, io.TextIOWrapper):
            # Letters that the encoding does not have become escapes, instead of an error.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        self.is_unread = isinstance(error, BrokenPipeError)
        why = ", because whoever read it has stopped" if self.is_unread else f" ({error.strerror or error})"
        self.trouble = why if self.trouble is None else self.trouble
        # When Python ends, it would try again what the stream still holds, and exit with 120.
        with suppress(OSError):
            descriptor = self._stream.fileno()
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def fill_closed_descriptors() -> None:
    """Let no file take the place of a standard stream that is closed, where it would be written to as one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def write_at_once(path: Path, text: str) -> None:
    """Write a file, or into a pipe. Raises `OSError` for a pipe that nobody reads, where others would wait for ever."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def say(text: str) -> None:
    """Write one line, or several, to stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"{visible_lines(text)}\n")


def note(text: str, arguments: argparse.Namespace) -> None:
    """Write to stderr what is no error and no result: --quiet leaves it out."""
    if not arguments.quiet:
        say(text)


def print_line(text: str) -> None:
    """A line of output as it is, however long."""
    sys.stdout.write(f"{visible(text)}\n")


def console(width: int | None = None) -> Console:
    """Where tables go; what is in brackets is no markup. `width` in characters, unset that of the terminal."""
    from rich.console import Console

    # Without a height, rich takes a terminal that it does not know to be 80 wide.
    height = None if width is None else 25
    return Console(highlight=False, markup=False, emoji=False, width=width, height=height)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
