"""`python -m bench.speed.footprint N`: train on a made-up text of N sentences, and print bytes of resident memory.

A process of its own, because memory that another part of a program once took counts for all that follows. Printed are
the memory of the process itself when training ends, and the peak with pages of the mapped files, which the system keeps
while it has room and takes back when it needs some.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from transformers import BertConfig, BertModel

from bench.budget import Budget, Ledger, peak_memory_bytes
from bench.corpus import Corpus
from bench.encoder import Encoder
from bench.sections import TrainSpec
from bench.store import FINAL, TeacherStore
from bench.train import Cell, train
from methods.mse import MSE

TOKENS, VOCABULARY = 16, 1000
WIDTH = 384
"""Of the teacher's vectors, as MiniLM's."""
STEPS = 70
"""More than one block of the teacher's store."""
AT_ONCE = 100_000


def footprint(sentences: int) -> tuple[int, int]:
    """Resident bytes of this process after some training on a text of this size: its own, and with mapped files."""
    with TemporaryDirectory(prefix="distilbench-footprint-") as folder:
        text = _text(Path(folder), sentences)
        teacher, student = _encoder(WIDTH), _encoder(WIDTH // 8)
        store = TeacherStore(Path(folder) / "signals", teacher, text, [FINAL])
        spec = TrainSpec(batch_size=64)
        trained = train(Cell(MSE(), student, teacher, text, store, spec, Budget("steps", STEPS), seed=1), Ledger())
        assert not trained.diverged
        return _own_bytes(), peak_memory_bytes()


def _own_bytes() -> int:
    """Resident memory that is no page of a file; where the system does not tell, all of it."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return peak_memory_bytes()


def _text(folder: Path, sentences: int) -> Corpus:
    """Random tokens on disk, of lengths that vary, written without holding them."""
    rng = np.random.default_rng(0)
    # Not written through a map, whose pages would count.
    with (folder / "tokens.bin").open("wb") as tokens, (folder / "offsets.bin").open("wb") as offsets:
        np.zeros(1, np.int64).tofile(offsets)
        end = 0
        for start in range(0, sentences, AT_ONCE):
            ends = end + np.cumsum(rng.integers(4, 2 * TOKENS - 4, min(AT_ONCE, sentences - start)))
            ends.tofile(offsets)
            rng.integers(0, VOCABULARY, int(ends[-1]) - end, dtype=np.uint16).tofile(tokens)
            end = int(ends[-1])
    return Corpus(
        key="",
        sha256="",
        source="",
        tokens=np.memmap(folder / "tokens.bin", dtype=np.uint16, mode="r"),
        offsets=np.memmap(folder / "offsets.bin", dtype=np.int64, mode="r"),
        pad_id=0,
        mask_id=1,
        special_ids=(),
    )


def _encoder(width: int) -> Encoder:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=width,
        max_position_embeddings=4 * TOKENS,
    )
    return Encoder(BertModel(config, add_pooling_layer=False), pooling="mean", max_length=4 * TOKENS).eval()


if __name__ == "__main__":
    sys.stdout.write("{} {}\n".format(*footprint(int(sys.argv[1]))))
