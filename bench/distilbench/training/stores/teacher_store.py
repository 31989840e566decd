"""Teacher signals, computed once and shared by all methods, seeds and studies.

    signals/<key>/<array>.bin   N rows as `row_types` has them, memory-mapped; `final`, or `mean-3` for a pooled layer
                  <array>.crc   uint32 [N], the CRC-32 of each row; 0 for rows that are not there
                  begun/        the rows that were being computed when the last process was killed
                  KEY           as in `distilbench.core.cache`: a store in another's place is begun anew

Rows are computed when first asked for, and count as there only where their checksum is right: a row that was cut off
by a kill, or damaged since, is computed again. What passes the teacher together decides the last bits of its vectors:
rows that a killed process had begun are finished in the batches in which it began them.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.core.cache import claim, is_in_its_place, locked
from distilbench.core.hashes import key_of
from distilbench.core.sealed import clear_up, is_sound, write_sealed
from distilbench.data.batches import length_batches
from distilbench.data.corpus import Corpus
from distilbench.models.embed import tokens_per_pass
from distilbench.models.encoder import Encoder
from distilbench.models.parts.pooling import pool
from distilbench.study.sections.training import RowType
from distilbench.training.stores.row_types import decode, encode, row_bytes
from distilbench_methods.base import Needs
from distilbench_methods.pooling import LayerPooling

SIGNALS = "the teacher's signals"
FINAL = "final"
ROWS_PER_CHUNK = 4096
MARK_BYTES = np.dtype(np.uint32).itemsize

_log = logging.getLogger(__name__)


def array_names(needs: Needs) -> set[str]:
    """Stored arrays that a method reads."""
    layers = {layer_name(needs.layer_pooling, layer) for layer in needs.teacher_layers}
    of_candidates = needs.teacher_scores or needs.teacher_candidates
    final = needs.teacher_final or of_candidates or needs.teacher_rows or needs.teacher_negatives or needs.fit_rows
    return layers | ({FINAL} if final else set())


def layer_name(pooling: LayerPooling, layer: int) -> str:
    return f"{pooling}-{layer}"


def store_key(teacher_hashes: dict[str, str], corpus_key: str, kind: RowType = "float32") -> str:
    """Hash of all that decides the values in a store."""
    return key_of(teacher=teacher_hashes, corpus=corpus_key, **({} if kind == "float32" else {"kind": kind}))


def store_size(teacher: Encoder, arrays: Iterable[str], rows: int, kind: RowType) -> int:
    """Bytes on disk of a full store with these arrays."""
    return sum(rows * (row_bytes(kind, _width(teacher, name)) + MARK_BYTES) for name in arrays)


def _width(teacher: Encoder, name: str) -> int:
    return teacher.output_width() if name == FINAL else teacher.dims.width


class TeacherStore:
    """The teacher's vectors for every sentence of a corpus, filled on demand."""

    def __init__(
        self,
        folder: Path,
        teacher: Encoder,
        corpus: Corpus,
        arrays: Iterable[str],
        kind: RowType = "float32",
        load: Callable[[], Encoder] | None = None,
    ) -> None:
        """`corpus` is the text as the teacher reads it, `arrays` what a whole study needs: one pass fills them all.

        With `load`, which gives the teacher when something is to be computed, `teacher` is its shape only.
        """
        self._shape, self._load = teacher, load or (lambda: teacher)
        self.corpus = corpus
        self._folder, self._begun = folder, folder / "begun"
        self._arrays: dict[str, _Array] = {}
        self._sound_N = np.zeros(len(corpus), dtype=bool)
        with locked(folder, SIGNALS):
            claim(folder, SIGNALS)
            for name in arrays:
                self._arrays[name] = _Array(folder, name, (len(corpus), _width(teacher, name)), kind)
            if self._arrays:
                self._finish_begun()

    @property
    def final_width(self) -> int:
        """Numbers of each of the teacher's vectors."""
        return self._shape.output_width()

    def is_full(self) -> bool:
        """Whether every row was computed; whether one is damaged is not looked at."""
        return all(array.is_full() for array in self._arrays.values())

    def ensure(self, rows: NDArray[np.int64]) -> int:
        """Compute what is missing for some rows, and return how many sentences passed the teacher."""
        if not self._arrays or not len(self._missing(rows)):
            return 0
        with locked(self._folder, SIGNALS):
            missing = self._missing(rows)
            for start in range(0, len(missing), ROWS_PER_CHUNK):
                chunk = missing[start : start + ROWS_PER_CHUNK]
                write_sealed(self._begun, partial(_write_rows, rows=chunk))
                self._fill(chunk)
                shutil.rmtree(self._begun)
            return len(missing)

    def _finish_begun(self) -> None:
        clear_up(self._begun)
        if is_sound(self._begun, "the list of rows"):
            self._fill(np.load(self._begun / "rows.npy"))
        shutil.rmtree(self._begun, ignore_errors=True)

    def _missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        unsure = np.unique(rows[~self._sound_N[rows]])
        sound = np.logical_and.reduce([array.sound(unsure) for array in self._arrays.values()])
        self._sound_N[unsure[sound]] = True
        missing: NDArray[np.int64] = unsure[~sound]
        return missing

    def _fill(self, rows: NDArray[np.int64]) -> None:
        parts = {name: name.split("-") for name in self._arrays if name != FINAL}
        layers = sorted({int(layer) for _, layer in parts.values()})
        teacher = self._load()
        for part in length_batches(rows, self.corpus.lengths_of(rows), tokens_per_pass(teacher.device)):
            if not len(self._missing(part)):
                continue
            ids, mask = (tensor.to(teacher.device) for tensor in self.corpus.batch(part))
            with torch.inference_mode():
                out = teacher(ids, mask, hidden=layers)
                found = {
                    name: pool(out.hidden[layers.index(int(layer))], mask, cast(LayerPooling, pooling))
                    for name, (pooling, layer) in parts.items()
                }
            if FINAL in self._arrays:
                found[FINAL] = out.final
            for name, values in found.items():
                self._arrays[name].write(part, values.float().cpu().numpy())

    def read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Stored values of some rows, [B, width], float32."""
        return torch.from_numpy(self._arrays[name].read(rows))


class _Array:
    """One array of a store. Whoever makes one or writes to it holds the store's lock."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, int], kind: RowType) -> None:
        self._values_file, self._marks_file = folder / f"{name}.bin", folder / f"{name}.crc"
        rows, width = shape
        self._kind: RowType = kind
        self._row_bytes = row_bytes(kind, width)
        _set_size(self._values_file, rows * self._row_bytes)
        _set_size(self._marks_file, rows * MARK_BYTES)
        self._rows_NX = np.memmap(self._values_file, dtype=np.uint8, mode="r", shape=(rows, self._row_bytes))
        self._marks_N = np.memmap(self._marks_file, dtype=np.uint32, mode="r", shape=(rows,))

    def read(self, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """The values of some rows, [B, width]."""
        return decode(self._kind, np.asarray(self._rows_NX[rows_B]))

    def sound(self, rows_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are there and undamaged, [B]."""
        marks_B = np.asarray(self._marks_N[rows_B])
        sound_B: NDArray[np.bool_] = marks_B != 0
        sound_B[sound_B] = _checksums(self._rows_NX[rows_B[sound_B]]) == marks_B[sound_B]
        if damaged := int(((marks_B != 0) & ~sound_B).sum()):
            _log.warning("%d rows of %s are damaged; they are computed again", damaged, self._values_file)
        return sound_B

    def is_full(self) -> bool:
        return bool((self._marks_N != 0).all())

    def write(self, rows_B: NDArray[np.int64], values_BW: NDArray[np.float32]) -> None:
        rows_BX = encode(self._kind, values_BW)
        # Written to files, not to their maps: a full disk is then an error, where it would kill a writer to a map.
        for path, size, values in (
            (self._values_file, self._row_bytes, rows_BX),
            (self._marks_file, MARK_BYTES, _checksums(rows_BX)),
        ):
            with path.open("r+b", buffering=0) as stream:
                for row, value in zip(rows_B, values, strict=True):
                    stream.seek(int(row) * size)
                    stream.write(value.tobytes())


def _checksums(rows_BX: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """CRC-32 of each row; 1 in the place of 0, which stands for rows that are not there."""
    return np.array([zlib.crc32(row.tobytes()) or 1 for row in rows_BX], dtype=np.uint32)


def stored_rows(folder: Path, arrays: Iterable[str]) -> int:
    """Rows of a store that are there in all `arrays`; 0 when there is no store."""
    files = [folder / f"{name}.crc" for name in arrays]
    if not files or not is_in_its_place(folder) or not all(file.is_file() for file in files):
        return 0
    return int(np.logical_and.reduce([np.fromfile(file, dtype=np.uint32) for file in files]).sum())


def _write_rows(folder: Path, rows: NDArray[np.int64]) -> None:
    np.save(folder / "rows.npy", rows)


def _set_size(path: Path, size: int) -> None:
    with path.open("ab") as stream:
        if stream.tell() != size:
            stream.truncate(0)
            stream.truncate(size)
