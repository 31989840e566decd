"""Teacher signals, computed once and shared by all methods, seeds and studies.

    signals/<key>/<array>.bin    float32 [N, width], memory-mapped; `final`, or `mean-3` for a pooled layer
                  <array>.done   one byte per row: 1 once the row is written

Rows are computed when first asked for. A row counts as there only after its values are on disk, so a run that is
killed loses at most the rows of its last chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from bench.corpus import Corpus
from bench.encoder import Encoder, pool
from bench.identity import key_of
from methods.base import LayerPooling, Needs

FINAL = "final"
TOKENS_PER_PASS = 2048
ROWS_PER_CHUNK = 4096


def array_names(needs: Needs) -> set[str]:
    """Stored arrays that a method reads."""
    layers = {layer_name(needs.layer_pooling, layer) for layer in needs.teacher_layers}
    final = (
        needs.teacher_final or needs.teacher_scores or needs.teacher_rows or needs.teacher_negatives or needs.fit_rows
    )
    return layers | ({FINAL} if final else set())


def layer_name(pooling: LayerPooling, layer: int) -> str:
    return f"{pooling}-{layer}"


def store_key(teacher_hashes: dict[str, str], corpus_key: str) -> str:
    """Hash of all that decides the values in a store."""
    return key_of(teacher=teacher_hashes, corpus=corpus_key)


class TeacherStore:
    """The teacher's vectors for every sentence of a corpus, filled on demand."""

    def __init__(self, folder: Path, teacher: Encoder, corpus: Corpus, arrays: Iterable[str]) -> None:
        """`arrays` is what the whole study needs: each pass of the teacher fills all of them."""
        self._teacher = teacher
        self._corpus = corpus
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        self._values: dict[str, np.memmap[Any, Any]] = {}
        self._done: dict[str, np.memmap[Any, Any]] = {}
        with self._lock:
            for name in arrays:
                self._add(folder, name)

    def _add(self, folder: Path, name: str) -> None:
        values, marks = folder / f"{name}.bin", folder / f"{name}.done"
        if not _has_size(values, self._shape(name)):
            # Marks of values that are gone would pass zeros off as the teacher's.
            marks.unlink(missing_ok=True)
        self._values[name] = _open(values, "float32", self._shape(name))
        self._done[name] = _open(marks, "uint8", (len(self._corpus),))

    def _shape(self, name: str) -> tuple[int, int]:
        width = self._teacher.output_width() if name == FINAL else self._teacher.dims.width
        return len(self._corpus), width

    def ensure(self, rows: NDArray[np.int64]) -> int:
        """Compute what is missing for some rows, and return how many sentences passed the teacher."""
        if not self._values or not len(self._missing(rows)):
            return 0
        with self._lock:
            missing = self._missing(rows)
            for start in range(0, len(missing), ROWS_PER_CHUNK):
                chunk = missing[start : start + ROWS_PER_CHUNK]
                self._fill(chunk)
                for name, values in self._values.items():
                    values.flush()
                    self._done[name][chunk] = 1
                    self._done[name].flush()
            return len(missing)

    def _missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        there = np.logical_and.reduce([done[rows] != 0 for done in self._done.values()])
        return np.unique(rows[~there])

    def _fill(self, rows: NDArray[np.int64]) -> None:
        parts = {name: name.split("-") for name in self._values if name != FINAL}
        layers = sorted({int(layer) for _, layer in parts.values()})
        for part in length_batches(rows, self._corpus.lengths(), TOKENS_PER_PASS):
            ids, mask = (tensor.to(self._teacher.device) for tensor in self._corpus.batch(part))
            with torch.inference_mode():
                out = self._teacher(ids, mask, hidden=layers)
                found = {
                    name: pool(out.hidden[layers.index(int(layer))], mask, cast(LayerPooling, pooling))
                    for name, (pooling, layer) in parts.items()
                }
            if FINAL in self._values:
                found[FINAL] = out.final
            for name, values in found.items():
                self._values[name][part] = values.float().cpu().numpy()

    def read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Stored values of some rows, [B, width], float32."""
        return torch.from_numpy(np.asarray(self._values[name][rows]))


def stored_rows(folder: Path, arrays: Iterable[str]) -> int:
    """Rows of a store that are complete in all `arrays`; 0 when there is no store."""
    files = [folder / f"{name}.done" for name in arrays]
    if not files or not all(file.is_file() for file in files):
        return 0
    return int(np.logical_and.reduce([np.fromfile(file, dtype=np.uint8) for file in files]).sum())


def _has_size(path: Path, shape: tuple[int, ...], dtype: str = "float32") -> bool:
    return path.exists() and path.stat().st_size == int(np.prod(shape)) * np.dtype(dtype).itemsize


def _open(path: Path, dtype: str, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    if not _has_size(path, shape, dtype):
        with path.open("wb") as stream:
            stream.truncate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def length_batches(rows: NDArray[np.int64], lengths_N: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows sorted by length, in batches of at most `tokens` padded tokens (or one row)."""
    ordered = rows[np.argsort(lengths_N[rows], kind="stable")]
    start = 0
    while start < len(ordered):
        count = max(1, tokens // int(lengths_N[ordered[start]]))
        while count > 1 and count * int(lengths_N[ordered[min(start + count, len(ordered)) - 1]]) > tokens:
            count -= 1
        yield ordered[start : start + count]
        start += count
