"""Folders that are there whole or not at all, and that show it when a byte of them has changed.

A folder is filled under a temporary name beside its place, flushed to disk and moved there. A sealed one holds the
hashes of its files in `SHA256SUMS`, which `sha256sum --check` reads too.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from distilbench.core.bounds import check_ordinary
from distilbench.core.errors import UserError
from distilbench.core.hashes import file_sha256

SUMS_FILE = "SHA256SUMS"
REPLACED = ".old"
TEXT = ".json"
"""What git takes for text, of the files that are written here."""
ATTEMPTS = 10
"""Two processes that replace the same folder may have to step aside for each other."""
LOOKS, PAUSE_SECONDS = 50, 0.02
"""How often a reader looks again at what a writer replaces, and how long it waits in between."""
CURRENT_FOLDER, EXCHANGE = -100, 2
"""Of renameat2, as Linux has them."""

SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")

T = TypeVar("T")

_log = logging.getLogger(__name__)


def write_folder_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `path`, then move it into place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    replaced = temporary.with_name(f"{temporary.name}{REPLACED}")
    is_there = False
    try:
        write(temporary)
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        _move(temporary, path, replaced)
        is_there = True
        _flush(path.parent)
    finally:
        # Once it was there, it is another process that has just taken it away, to put its own there.
        if not is_there and replaced.exists() and not path.exists():
            with suppress(OSError):
                replaced.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_sealed(path: Path, write: Callable[[Path], None]) -> None:
    """As `write_folder_atomically`, with the hashes of all files added."""

    def write_and_seal(folder: Path) -> None:
        write(folder)
        (folder / SUMS_FILE).write_text(_sums(folder), encoding="utf-8")

    write_folder_atomically(path, write_and_seal)


def write_together(vouching: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside a file, then move its files there, `vouching` as the last.

    That one must hold what the others are known by. A kill then leaves all old ones, all new ones, or others than the
    old `vouching` says, and never a new `vouching` without its others.
    """
    vouching.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vouching.parent, prefix=f".{vouching.name}.") as staged:
        write(Path(staged))
        files = sorted(Path(staged).iterdir(), key=lambda file: file.name == vouching.name)
        for file in files:
            _flush(file)
        for file in files:
            file.replace(vouching.parent / file.name)
        _flush(vouching.parent)


def undisturbed(folder: Path, read: Callable[[], T], is_fine: Callable[[T], bool] = lambda _: True) -> T:
    """What `read` gives or raises of a folder, or of a file, that nobody replaced meanwhile.

    A writer may put another in its place at any time. So what `read` raises, or gives and `is_fine` does not take, is
    looked at once more before it counts; and as often as there is another one.
    """
    for look in range(LOOKS):
        before = _place_on_disk(folder)
        error: Exception | None = None
        try:
            found = read()
        except (UserError, OSError, ValueError) as raised:
            error = raised
        settled = _place_on_disk(folder) == before
        if error is None and settled and before is not None and is_fine(found):
            return found
        if look and settled and not (before is None and _is_replaced(folder)):
            break
        time.sleep(PAUSE_SECONDS)
    if error is not None:
        raise error
    return found


def listed(folder: Path, look: Callable[[], T]) -> T:
    """What `look` finds in a folder, twice in a row, when nothing is away that a writer is about to put there."""
    found = look()
    for _ in range(LOOKS):
        before, away = found, [left.name for left in folder.glob(f".*{REPLACED}")]
        found = look()
        # Of `.NAME.xyz.old`, the name. One that stays away is what a killed process has left.
        if found == before and all((folder / name[1:].rsplit(".", 2)[0]).exists() for name in away):
            break
        time.sleep(PAUSE_SECONDS)
    return found


def _is_replaced(path: Path) -> bool:
    """Whether what was there is under the name that a writer gives it until the new one is in its place."""
    return any(path.parent.glob(f".{glob.escape(path.name)}.*{REPLACED}"))


def _place_on_disk(path: Path) -> tuple[int, int, int] | None:
    """What is another number for another folder of the same name; of a folder that is away, None."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns


def is_sealed(folder: Path) -> bool:
    """Whether a sealed folder is there; whether it is damaged is for `damage` to say."""
    return (folder / SUMS_FILE).is_file()


def damage(folder: Path, may_lack: Collection[str] = (), *, line_ends: bool = False) -> str | None:
    """What is wrong with a sealed folder, in a few words, or None. Reads every byte of it.

    `may_lack` names files that a sound folder has as they were written, or not at all. With `line_ends`, its text may
    have the line ends of another system, which git gives to it and which change nothing that it says.
    """
    try:
        check_ordinary(folder / SUMS_FILE)
        written = (folder / SUMS_FILE).read_bytes()
        if line_ends:
            written = written.replace(b"\r\n", b"\n")
        absent = {name for name in may_lack if not (folder / name).exists()}
        expected = b"".join(line for line in written.splitlines(keepends=True) if _named(line) not in absent)
        found = _sums(folder, line_ends=line_ends).encode()
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    if expected == found:
        return None
    changed = sorted(_named(line) for line in set(found.splitlines()) - set(expected.splitlines()))
    return f"{changed[0] if changed else SUMS_FILE} is not as it was written"


def is_sound(folder: Path, what: str, may_lack: Collection[str] = (), *, line_ends: bool = False) -> bool:
    """Whether a sealed folder is there and undamaged. Damage is logged, with the name of what will be made again."""
    if not is_sealed(folder):
        return False
    found = undisturbed(folder, lambda: damage(folder, may_lack, line_ends=line_ends), lambda fault: fault is None)
    if found:
        _log.warning("%s in %s is damaged (%s); it is made again", what, folder, found)
    return found is None


def clear_up(path: Path) -> None:
    """Remove what killed processes left beside `path`, and put back what one of them was about to replace.

    For those who know that nobody else is writing there.
    """
    for left in sorted(path.parent.glob(f".{path.name}.*")):
        if left.name.endswith(REPLACED) and not path.exists():
            left.replace(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def disk_trouble(error: BaseException) -> str | None:
    """What the system said when it refused to write: disk full, quota, size, read-only; None for any other error."""
    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    if isinstance(error, OSError) and error.errno in refusals:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    # numpy counts what it wrote, and does not ask why that was less.
    if isinstance(error, OSError) and (short := SHORT_WRITE.search(str(error))):
        return short[0]
    # Libraries that write in other languages carry the system's words in errors of their own.
    return next((os.strerror(code) for code in refusals if os.strerror(code) in str(error)), None)


def refused_path(error: BaseException) -> str | None:
    """Which path the system refused to open or make, and why; None for any other error."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename} cannot be used ({error.strerror})"
    return None


def _move(temporary: Path, path: Path, replaced: Path) -> None:
    # What was there is then under the temporary name, and removed with it.
    if path.is_dir() and _exchange(temporary, path):
        return
    for attempt in range(ATTEMPTS):
        try:
            if path.exists():
                path.replace(replaced)
            temporary.replace(path)
            return
        except OSError as error:
            if attempt == ATTEMPTS - 1 or error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(replaced, ignore_errors=True)
            # At different times, and without touching the random state of what is being computed.
            time.sleep(secrets.randbelow(2**attempt) / 1000)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places at once, so that nobody finds neither. False where the system cannot."""
    call = _renameat2()
    return call is not None and (
        call(CURRENT_FOLDER, os.fsencode(one), CURRENT_FOLDER, os.fsencode(other), EXCHANGE) == 0
    )


@cache
def _renameat2() -> Any:
    import ctypes

    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call


def _sums(folder: Path, *, line_ends: bool = False) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS_FILE)
    sum_of = _sum_as_written if line_ends else file_sha256
    return "".join(f"{sum_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def _sum_as_written(path: Path) -> str:
    """Of a file as it left here, whatever line ends it has now."""
    if path.suffix != TEXT:
        return file_sha256(path)
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _named(line: bytes) -> str:
    """The file that a line of sums is about."""
    return line.partition(b"  ")[2].rstrip(b"\n").decode(errors="replace")


def _flush(path: Path) -> None:
    # Only some systems can open a folder; those that cannot have nothing to flush.
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
