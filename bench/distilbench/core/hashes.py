"""Hashes that results are keyed by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from distilbench.core.bounds import check_ordinary

PROTOCOL = "3"
"""Raised whenever a change of this project changes results; rows of different protocols do not compare."""

KEY_LENGTH = 16


def key_of(**parts: Any) -> str:
    """Short hash of named JSON values, independent of their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises `OSError` for pipes and devices too."""
    check_ordinary(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path, patterns: tuple[str, ...]) -> str:
    """SHA-256 over names and contents of the files in `folder` that match any of `patterns`, in name order."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()
