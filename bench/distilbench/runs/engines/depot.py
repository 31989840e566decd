"""Folders behind a URI (file://, s3://, gs:// and whatever else fsspec opens), for nodes that share no file system.

<uri>/<name>.tar       the folder's files
      <name>.sha256    of the archive, written after it: without it, or where the two differ, nothing is there
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import IO, Any, cast

from fsspec.core import url_to_fs

from distilbench.core.errors import UserError
from distilbench.core.sealed import write_folder_atomically

CHUNK_BYTES = 2**20


class Depot:
    """Folders behind one URI, by name."""

    def __init__(self, uri: str) -> None:
        """Raises `UserError` for a URI that nothing here can open."""
        try:
            self._files, self._root = url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise UserError(f"--ship {uri} cannot be opened: {error}") from None
        self.uri = uri

    def has(self, name: str) -> bool:
        """Whether a folder was sent to its end."""
        return bool(self._files.exists(self._path(name, "sha256")))

    def send(self, folder: Path, name: str) -> None:
        """Keep a folder's files, in the place of what the name stood for. Raises `UserError` where that fails."""
        archive, digest = self._path(name, "tar"), hashlib.sha256()
        try:
            self._files.makedirs(archive.rpartition("/")[0], exist_ok=True)
            with (
                self._files.open(archive, "wb") as stream,
                # Stored models of the Hub are links to files elsewhere.
                tarfile.open(fileobj=_hashed(stream, digest), mode="w|", dereference=True) as tar,
            ):
                tar.add(folder, arcname=".")
            self._files.pipe_file(self._path(name, "sha256"), digest.hexdigest().encode())
        except Exception as error:
            # Every kind of storage has errors of its own.
            raise UserError(f"nothing can be written to --ship {self.uri} ({type(error).__name__}: {error})") from error

    def fetch(self, name: str, folder: Path) -> bool:
        """Put a folder in its place, whole; False where it is not there, or not yet."""
        if not self.has(name):
            return False
        expected, digest = self._files.cat_file(self._path(name, "sha256")).decode(), hashlib.sha256()

        def write(place: Path) -> None:
            with self._files.open(self._path(name, "tar"), "rb") as stream:
                source = _hashed(stream, digest)
                with tarfile.open(fileobj=source, mode="r|") as tar:
                    tar.extractall(place, filter="data")
                while source.read(CHUNK_BYTES):
                    pass
            if digest.hexdigest() != expected:
                raise tarfile.ReadError("another archive than was sent")

        try:
            write_folder_atomically(folder, write)
        except (tarfile.TarError, EOFError):
            return False
        return True

    def _path(self, name: str, ending: str) -> str:
        return f"{self._root.rstrip('/')}/{name}.{ending}"


def _hashed(stream: IO[bytes], digest: Any) -> IO[bytes]:
    return cast("IO[bytes]", _Hashed(stream, digest))


class _Hashed:
    """A stream whose bytes are hashed as they pass."""

    def __init__(self, stream: IO[bytes], digest: Any) -> None:
        self._stream, self._digest = stream, digest

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._stream.write(data)
