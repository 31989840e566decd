"""Teacher signals, computed once and shared by all methods, seeds and studies, and the signals of one batch.

    signals/<key>/<array>.bin    float32 [N, width], memory-mapped; `final`, or `mean-3` for a pooled layer
                  <array>.done   one byte per row: 1 once the row is written

Rows are computed when first asked for. A row counts as there only after its values are on disk, so a run that is
killed loses at most the rows of its last chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from bench.corpus import Corpus
from bench.encoder import Encoder
from bench.identity import key_of
from methods.base import Dims, LayerPooling, Needs, Signals

FINAL = "final"
TOKENS_PER_PASS = 2048
ROWS_PER_CHUNK = 4096


def array_names(needs: Needs) -> set[str]:
    """Stored arrays that a method reads."""
    layers = {_layer_name(needs.layer_pooling, layer) for layer in needs.teacher_layers}
    return layers | ({FINAL} if needs.teacher_final else set())


def _layer_name(pooling: LayerPooling, layer: int) -> str:
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
        layers = {name: int(name.split("-")[1]) for name in self._values if name != FINAL}
        poolings = {name.split("-")[0] for name in layers}
        for pooling in poolings or {"mean"}:
            names = [name for name in layers if name.startswith(f"{pooling}-")]
            for part in length_batches(rows, self._corpus.lengths(), TOKENS_PER_PASS):
                ids, mask = (tensor.to(self._teacher.device) for tensor in self._corpus.batch(part))
                with torch.inference_mode():
                    out = self._teacher(ids, mask, layers=[layers[name] for name in names], layer_pooling=pooling)
                for column, name in enumerate(names):
                    self._values[name][part] = out.layers[:, column].float().cpu().numpy()
                if FINAL in self._values:
                    self._values[FINAL][part] = out.final.float().cpu().numpy()

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


def dims_of(student: Encoder, teacher: Encoder, num_sentences: int) -> Dims:
    """What a method may know of this pair of models and this text."""
    return Dims(
        student=student.dims,
        teacher=teacher.dims,
        teacher_final=teacher.output_width(),
        num_sentences=num_sentences,
        # A student is cut from its teacher and keeps its tokenizer.
        shared_tokens=True,
    )


def negative_rows(index_B: NDArray[np.int64], count: int, num_sentences: int, seed: tuple[int, int]) -> Tensor:
    """Rows other than the anchor's own, drawn uniformly with replacement, [B, count]."""
    drawn = np.random.default_rng(seed).integers(0, num_sentences - 1, size=(len(index_B), count))
    return torch.from_numpy(drawn + (drawn >= index_B[:, None]))


class SignalSource:
    """Makes the signals of a batch: the only reader of `Needs`."""

    def __init__(
        self, needs: Needs, student: Encoder, teacher: Encoder, corpus: Corpus, store: TeacherStore, seed: int
    ) -> None:
        """`seed` is that of the run's stream of negatives."""
        self._needs = needs
        self._student = student
        self._teacher = teacher
        self._corpus = corpus
        self._store = store
        self._seed = seed
        # Fused attention knows no dropout on a CPU: torch would materialise the maps, and draw them more slowly.
        on_cpu = student.device.type == "cpu" and student.can_give_maps
        student.use_attention_maps(bool(needs.student_attention) or on_cpu)

    def __call__(self, step: int, rows_B: NDArray[np.int64]) -> Signals:
        """Signals of one batch; the student's carry gradient."""
        needs, device = self._needs, self._student.device
        ids_BT, mask_BT = (tensor.to(device, non_blocking=True) for tensor in self._corpus.batch(rows_B))
        student = self._student(
            ids_BT,
            mask_BT,
            layers=needs.student_layers,
            attention=needs.student_attention,
            layer_pooling=needs.layer_pooling,
        )
        found: dict[str, Any] = {"student_layers_BLS": student.layers, "student_attention": student.attention}
        if needs.student_views == 2:
            found["second_view_BS"] = self._student(ids_BT, mask_BT).final
        if needs.negatives:
            seed = (self._seed, step)
            found["negative_index_BK"] = negative_rows(rows_B, needs.negatives, len(self._corpus), seed).to(device)
        return Signals(
            index_B=torch.from_numpy(rows_B).to(device),
            mask_BT=mask_BT,
            student_BS=student.final,
            **found,
            **self._teacher_signals(rows_B, ids_BT, mask_BT),
        )

    def _teacher_signals(self, rows_B: NDArray[np.int64], ids_BT: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        needs, device = self._needs, ids_BT.device
        found: dict[str, Any] = {}
        if needs.teacher_final:
            found["teacher_final_BD"] = self._store.read(FINAL, rows_B).to(device)
        if needs.teacher_layers:
            names = [_layer_name(needs.layer_pooling, layer) for layer in needs.teacher_layers]
            found["teacher_layers_BLH"] = torch.stack([self._store.read(name, rows_B) for name in names], 1).to(device)
        if needs.teacher_attention:
            self._teacher.use_attention_maps(True)
            with torch.no_grad():
                found["teacher_attention"] = self._teacher(ids_BT, mask_BT, attention=needs.teacher_attention).attention
            self._teacher.use_attention_maps(False)
        return found
