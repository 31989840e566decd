"""What is read from a mirror: nothing outside of it, and nothing that is not what the sums beside it say.

A folder of a mirror may hold `SHA256SUMS`, as `distilbench prefetch` and `sha256sum` write it. Files that it names are
read once to be checked, which the cache remembers for as long as their sizes and times stay the same.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from distilbench.core.cache import find_or_make
from distilbench.core.errors import UserError, shown
from distilbench.core.hashes import file_sha256, key_of
from distilbench.core.machine import cache_folder
from distilbench.core.sealed import SUMS_FILE

LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
CURE = f"fetch it again, or, where it was changed on purpose, make {SUMS_FILE} again"


def below(mirror: Path, name: str, key: str) -> Path:
    """The path of a name in a mirror, checked where there are sums.

    Raises `UserError`, which names the study's `key`, for a name that leads outside, and for damage.
    """
    if not _stays_inside(name):
        raise UserError(f"{key} {shown(name)} leads out of the mirror; name a path below it, without ..")
    check(mirror / name, mirror)
    return mirror / name


def check(path: Path, mirror: Path, again: bool = False) -> None:
    """Compare a file, or all files of a folder, with the nearest sums above them in the mirror, if there are any.

    Raises `UserError` naming the first file that is damaged or missing. `again`: whatever the cache remembers.
    """
    folder = next(
        (at for at in (path, *path.parents) if at.is_relative_to(mirror) and (at / SUMS_FILE).is_file()), None
    )
    if folder is None:
        return
    sums = {name: value for name, value in _sums(folder).items() if (folder / name).is_relative_to(path)}
    if again:
        _compare(folder, sums)
        return
    key = key_of(folder=str(folder.resolve()), sums=sums, seen={name: _seen(folder, name) for name in sums})

    def write(target: Path) -> None:
        _compare(folder, sums)
        (target / "sums.json").write_text(json.dumps(sums), encoding="utf-8")

    if sums:
        find_or_make(cache_folder() / "verified" / key, write, f"what is known of {folder}")


def _sums(folder: Path) -> dict[str, str]:
    """File -> its sum."""
    found = {}
    lines = (folder / SUMS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if match is None or not _stays_inside(match[2]):
            raise UserError(
                f"{folder / SUMS_FILE} line {number} is no sum of a file of its folder; write it as sha256sum does, or "
                "delete it"
            )
        found[match[2]] = match[1].lower()
    return found


def _seen(folder: Path, name: str) -> tuple[int, int]:
    """Size and time of a file."""
    try:
        facts = (folder / name).stat()
    except OSError:
        raise UserError(f"{folder} lacks {name}, which its {SUMS_FILE} names; {CURE}") from None
    return facts.st_size, facts.st_mtime_ns


def _compare(folder: Path, sums: dict[str, str]) -> None:
    for name, value in sums.items():
        _seen(folder, name)
        try:
            there = file_sha256(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}); check its rights") from None
        if there != value:
            raise UserError(f"{folder / name} is not the file that its {SUMS_FILE} names; {CURE}")


def _stays_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts
