"""What is made once and kept in the cache, for all runs, processes and studies.

    <cache>/<kind>/<key>/               a sealed folder; the key is a hash of all that decides what is in it
                     KEY                its kind and key, so that one in another's place is noticed
    <cache>/locks/<kind>-<key>.lock     held by the process that is making it

Functions take the folder of an artefact, `<cache>/<kind>/<key>`, and `what` it is, for messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from distilbench.core.bounds import check_ordinary
from distilbench.core.hashes import key_of
from distilbench.core.sealed import clear_up, damage, is_sealed, write_folder_atomically, write_sealed

KEY_FILE = "KEY"
WAIT_FOREVER = -1.0
SILENT_SECONDS = 5.0
"""A process that waits for another one for longer than this says so."""

Arrays = Mapping[str, NDArray[Any]]
Write = Callable[[Path], None]
"""Fills an empty folder."""

_log = logging.getLogger(__name__)


def is_there(folder: Path) -> bool:
    """Whether the artefact of this place is there; whether it is damaged is not looked at."""
    return is_sealed(folder) and is_in_its_place(folder)


def is_in_its_place(folder: Path) -> bool:
    """Whether a folder says that it is what its place is for."""
    try:
        check_ordinary(folder / KEY_FILE)
        return (folder / KEY_FILE).read_bytes() == _name(folder)
    except OSError:
        return False


def fault(folder: Path) -> str | None:
    """Why an artefact cannot be used, in a few words that follow its name, or None. Reads every byte of it."""
    if not is_sealed(folder):
        return "is not there"
    if damaged := damage(folder):
        return f"is damaged ({damaged})"
    return None if is_in_its_place(folder) else "belongs to another place"


def is_usable(folder: Path, what: str) -> bool:
    """Whether the artefact is there, undamaged and in its place. If it is damaged or another's, that is logged."""
    wrong = fault(folder)
    if wrong is not None and is_sealed(folder):
        _log.warning("%s in %s %s; it is made again", what, folder, wrong)
    return wrong is None


def find_or_make(folder: Path, write: Write, what: str) -> Path:
    """The folder, filled by `write` if it is not there undamaged. Processes that ask together wait for the first."""
    # Looked at without the lock, which a cache that cannot be written does not give.
    if fault(folder) is None:
        _log.info("%s is found in %s", what, folder)
        return folder
    with locked(folder, what):
        if not is_usable(folder, what):
            start = time.perf_counter()
            put(folder, write)
            _log.info("%s is made in %s, in %.1f s", what, folder, time.perf_counter() - start)
    return folder


def put(folder: Path, write: Write) -> None:
    """Let `write` fill the folder, in place of what was there. For those who know that nobody else is writing it."""

    def write_with_key(path: Path) -> None:
        write(path)
        _write_key(path, folder)

    clear_up(folder)
    write_sealed(folder, write_with_key)


def claim(folder: Path, what: str) -> None:
    """Make an unsealed folder that is filled little by little. One that is another's is emptied, and that is logged.

    For those who know that nobody else is writing there.
    """
    clear_up(folder)
    if is_in_its_place(folder):
        return
    if folder.exists():
        _log.warning("%s in %s are damaged or belong to another place; they are made again", what, folder)
    write_folder_atomically(folder, lambda path: _write_key(path, folder))


@contextmanager
def locked(folder: Path, what: str, timeout: float = WAIT_FOREVER) -> Iterator[None]:
    """Be the only process that makes an artefact. Raises `Timeout` when another one does for so many seconds.

    Waiting for long is logged, once.
    """
    locks = folder.parent.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.parent.name}-{folder.name}.lock")
    try:
        lock.acquire(SILENT_SECONDS if timeout == WAIT_FOREVER else timeout)
    except Timeout:
        if timeout != WAIT_FOREVER:
            raise
        _log.warning("waiting for another process that is making %s (%s)", what, folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def kept_arrays(cache: Path, kind: str, make: Callable[[], Arrays], **parts: Any) -> dict[str, NDArray[Any]]:
    """What `make` gives, by name: from `cache/kind` where it is there and sound, else computed and put there.

    `parts`, JSON values, are all that decides it.
    """

    def write(path: Path) -> None:
        for name, values in make().items():
            np.save(path / f"{name}.npy", values)

    folder = find_or_make(cache / kind / key_of(**parts), write, f"what is kept of {kind}")
    return {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}


def _name(folder: Path) -> bytes:
    return f"{folder.parent.name}/{folder.name}\n".encode()


def _write_key(path: Path, folder: Path) -> None:
    (path / KEY_FILE).write_bytes(_name(folder))
