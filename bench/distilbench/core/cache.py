"""Arrays that take a model's passes, computed once and kept in the cache for all runs, processes and studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from distilbench.core.hashes import key_of
from distilbench.core.sealed import clear_up, is_sound, write_sealed

Arrays = Mapping[str, NDArray[Any]]


def kept_arrays(cache: Path, kind: str, make: Callable[[], Arrays], **parts: Any) -> dict[str, NDArray[Any]]:
    """What `make` gives, by name: from `cache/kind` where it is there and sound, else computed and put there.

    `parts`, JSON values, are all that decides it. Processes that ask together wait for the first of them.
    """
    key = key_of(**parts)
    folder, locks = cache / kind / key, cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{kind}-{key}.lock"):
        if not is_sound(folder, f"what is kept of {kind}"):
            clear_up(folder)
            made = make()
            write_sealed(folder, lambda path: _save(path, made))
    return {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}


def _save(folder: Path, arrays: Arrays) -> None:
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
