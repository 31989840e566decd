"""Speed of what every step does, for `make bench`: losses, batches, padding, stored vectors, dropout.

Not collected by an ordinary test run. `docs/gate.md` says how two runs are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import distilbench_methods
from distilbench.conformance.fakes import Maker, make_dims
from distilbench.data.batches import BatchOrder, length_batches
from distilbench.data.tokens import padded
from distilbench.models.parts.dropout import cheap_dropout
from distilbench.study.sections.training import RowType
from distilbench.training.stores.teacher_store import _Array

SENTENCES, TOKENS, BATCH, WIDTH = 20_000, 20, 64, 384


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def offsets() -> Any:
    lengths = np.random.default_rng(0).integers(4, 2 * TOKENS - 4, SENTENCES)
    return np.concatenate([[0], np.cumsum(lengths)])


@pytest.fixture(scope="module")
def order(offsets: Any) -> BatchOrder:
    return BatchOrder(np.diff(offsets), BATCH, seed=1)


@pytest.mark.parametrize("name", distilbench_methods.BUILT_IN)
def bench_loss(benchmark: BenchmarkFixture, name: str) -> None:
    """Loss and gradients of one batch, the student's pass left out."""
    method = distilbench_methods.load(name)()
    dims = make_dims(student=(WIDTH, 3, 12), teacher=(WIDTH, 6, 12), final=WIDTH, num_sentences=SENTENCES)
    signals = Maker(dims, BATCH, TOKENS, torch.float32, seed=0).signals(method.needs(dims))
    torch.manual_seed(0)
    aux = method.build_aux(dims)

    def step() -> None:
        torch.stack(list(method.loss(signals, aux, 0.5).values())).sum().backward()

    benchmark(step)


def bench_batch_order(benchmark: BenchmarkFixture, offsets: Any) -> None:
    """The order of one epoch."""
    lengths = np.diff(offsets)
    benchmark(lambda: BatchOrder(lengths, BATCH, seed=1)[0])


def bench_padding(benchmark: BenchmarkFixture, offsets: Any, order: BatchOrder) -> None:
    """Ids and mask of one batch of sentences."""
    flat = np.zeros(offsets[-1], dtype=np.uint16)
    benchmark(lambda: padded(flat, offsets, order[0], 0))


def bench_length_batches(benchmark: BenchmarkFixture, offsets: Any) -> None:
    """A teacher's pass over all sentences, cut into batches."""
    rows, lengths = np.arange(SENTENCES), np.diff(offsets)
    benchmark(lambda: list(length_batches(rows, lengths, 2048)))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def bench_store_read(benchmark: BenchmarkFixture, tmp_path: Path, order: BatchOrder, kind: RowType) -> None:
    """Stored vectors of one batch."""
    array = _Array(tmp_path, "final", (SENTENCES, WIDTH), kind)
    benchmark(lambda: torch.from_numpy(array.read(order[0])))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def bench_store_write_and_check(benchmark: BenchmarkFixture, tmp_path: Path, kind: RowType) -> None:
    """Vectors of one batch written with their checksums, and verified."""
    array = _Array(tmp_path, "final", (SENTENCES, WIDTH), kind)
    rows, values = np.arange(BATCH), np.ones((BATCH, WIDTH), dtype=np.float32)

    def write_and_check() -> bool:
        array.write(rows, values)
        return bool(array.sound(rows).all())

    assert benchmark(write_and_check)


@pytest.mark.parametrize("shape", [(BATCH, 12, TOKENS, TOKENS), (BATCH, TOKENS, WIDTH)], ids=["attention", "states"])
def bench_dropout(benchmark: BenchmarkFixture, shape: tuple[int, ...]) -> None:
    """Dropout, forward and backward."""
    x = torch.randn(shape, requires_grad=True)
    benchmark(lambda: cheap_dropout(x, 0.1).sum().backward())
