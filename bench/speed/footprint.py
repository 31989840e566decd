"""`python bench/speed/footprint.py WORK N`: work on a made-up text of N sentences, and print bytes of resident memory.

WORK is `read` (a text file is read and tokenised) or `train` (on text that is tokenised). A process of its own, because
memory that another part of a program once took counts for all that follows. Printed are the memory of the process
itself when the work is done, and the peak with pages of mapped files, which the system keeps while it has room and
takes back when it needs some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from distilbench.data.corpus import Corpus
from distilbench.data.plain_text import TextRequest, build_or_open, corpus_key
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import StoredModel
from distilbench.study.budget import Budget, Ledger, peak_memory_bytes
from distilbench.study.sections.texts import TextSpec
from distilbench.study.sections.training import TrainSpec
from distilbench.training.job import TrainingJob
from distilbench.training.loop import train
from distilbench.training.stores.teacher_store import FINAL, TeacherStore
from distilbench_methods.mse import MSE

TOKENS, VOCABULARY = 16, 1000
WIDTH = 384
"""Of the teacher's vectors, as MiniLM's."""
STEPS = 70
"""More than one block of the teacher's store."""
AT_ONCE = 100_000


def footprint(work: str, sentences: int) -> tuple[int, int]:
    """Resident bytes of this process after work on a text of this size: its own, and the peak with mapped files."""
    with TemporaryDirectory(prefix="distilbench-footprint-") as folder:
        WORKS[work](Path(folder), sentences)
        return _own_bytes(), peak_memory_bytes()


def _read(folder: Path, sentences: int) -> None:
    """Read a text file of random words, leave out what comes twice, and tokenise the rest."""
    rng = np.random.default_rng(0)
    with (folder / "text.txt").open("w", encoding="utf-8") as stream:
        for start in range(0, sentences, AT_ONCE):
            lengths = _lengths(rng, min(AT_ONCE, sentences - start))
            words = map(str, rng.integers(0, VOCABULARY, lengths.sum()).tolist())
            stream.writelines(" ".join(islice(words, length)) + "\n" for length in lengths.tolist())
    known = {str(number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel({**known, "[PAD]": VOCABULARY, "[UNK]": VOCABULARY + 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder / "model")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=VOCABULARY + 2, **sizes)).save_pretrained(folder / "model")
    train = TrainSpec()
    request = TextRequest(TextSpec(source=str(folder / "text.txt")), train.max_length, train.batch_size, None, None)
    reader = StoredModel("model", folder / "model").reader()
    key = corpus_key(request, reader)
    assert len(build_or_open(request, reader, key, folder / "cache")) > 0.9 * sentences


def _train(folder: Path, sentences: int) -> None:
    """Train some steps, through the teacher's store."""
    text = _text(folder, sentences)
    teacher, student = _encoder(WIDTH), _encoder(WIDTH // 8)
    store = TeacherStore(folder / "signals" / "store", teacher, text, [FINAL])
    spec = TrainSpec(batch_size=64, precision="fp32")
    trained = train(TrainingJob(MSE(), student, teacher, text, store, spec, Budget("steps", STEPS), seed=1), Ledger())
    assert not trained.diverged


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
            ends = end + np.cumsum(_lengths(rng, min(AT_ONCE, sentences - start)))
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


def _lengths(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return rng.integers(4, 2 * TOKENS - 4, count)


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


WORKS: dict[str, Callable[[Path, int], None]] = {"read": _read, "train": _train}

if __name__ == "__main__":
    sys.stdout.write("{} {}\n".format(*footprint(sys.argv[1], int(sys.argv[2]))))
