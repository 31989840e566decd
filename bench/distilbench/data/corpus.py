"""The training text, tokenised once: a flat memory-mapped array of token ids, shared by all runs.

corpora/<key>/tokens.bin         token ids of all sentences, one after the other
              offsets.npy        [N + 1] where each sentence begins
              sentences.parquet  the text itself, column `text`
              meta.json          counts and the SHA-256 of the tokens
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distilbench.core.cache import fault, find_or_make, is_there
from distilbench.core.errors import UserError
from distilbench.data.sentences import chunks, sentence_writer, stored_sentences
from distilbench.data.tokens import padded
from distilbench.records.record import dump_json

SENTENCES_FILE = "sentences.parquet"
TOKENIZE_AT_ONCE = 4096
SAMPLE_SEED = 20240
LENGTHS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """N tokenised sentences, read from disk as needed."""

    key: str
    sha256: str
    source: str
    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    pad_id: int
    mask_id: int
    """What stands for a hidden token; the padding token where the tokenizer has none for this."""
    special_ids: tuple[int, ...]

    @property
    def corpus(self) -> Corpus:
        """Itself: of plain text, each row is one sentence."""
        return self

    def sentences(self, rows_B: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The first `count` sentences of some rows, [B, count]; of plain text there is but one in each row."""
        if count != 1:
            raise ValueError(f"plain text has one sentence in a row, not {count}")
        return rows_B[:, None]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sentence, special tokens included, [N]."""
        found_N = np.empty(len(self), dtype=np.int32)
        for start in range(0, len(self), LENGTHS_AT_ONCE):
            part = self.offsets[start : start + LENGTHS_AT_ONCE + 1]
            found_N[start : start + LENGTHS_AT_ONCE] = np.diff(part)
        return found_N

    def lengths_of(self, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some sentences, special tokens included, [B]."""
        return self.offsets[rows_B + 1] - self.offsets[rows_B]

    def num_tokens(self, rows: NDArray[np.int64]) -> int:
        """Tokens of some sentences together, padding not counted."""
        return int(self.lengths_of(rows).sum())

    def width(self, rows: NDArray[np.int64]) -> int:
        """Tokens of the longest of some sentences: what a batch of them is padded to."""
        return int(self.lengths_of(rows).max())

    def batch(self, rows_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some sentences, each [B, T], padded to the longest."""
        return padded(self.tokens, self.offsets, rows_B, self.pad_id)


def is_built(cache: Path, key: str) -> bool:
    """Whether the tokenised text lies in the cache; whether it is damaged is not looked at."""
    return is_there(_folder(cache, key))


def texts_of(cache: Path, key: str) -> Iterator[str]:
    """The sentences of a tokenised text in the cache. Raises `UserError` when it is damaged or not there."""
    folder = _folder(cache, key)
    if wrong := fault(folder):
        raise UserError(f"the text in {folder} {wrong}; delete that folder and run the same command again")
    yield from stored_sentences(folder / SENTENCES_FILE)


def made(cache: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of a tokenised text, filled by `write` where it is not there yet, or is damaged."""
    return find_or_make(_folder(cache, key), write, "the text")


def open_corpus(folder: Path, key: str, source: str) -> Corpus:
    """Map a folder that `write_corpus` wrote."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return Corpus(
        key=key,
        sha256=meta["sha256"],
        source=source,
        tokens=np.memmap(folder / "tokens.bin", dtype=meta["dtype"], mode="r"),
        offsets=np.load(folder / "offsets.npy", mmap_mode="r"),
        pad_id=meta["pad_id"],
        mask_id=meta["mask_id"],
        special_ids=tuple(meta["special_ids"]),
    )


def write_corpus(
    folder: Path, sentences: Iterable[str], tokenizer: Any, max_length: int, prompts: Iterable[str] | str = ""
) -> None:
    """Tokenise sentences into a folder, as they come; before each stands its prompt, or one before all."""
    before = repeat(prompts) if isinstance(prompts, str) else iter(prompts)
    dtype = np.dtype(np.uint16 if len(tokenizer) <= np.iinfo(np.uint16).max else np.uint32)
    lengths = array("i")
    digest = hashlib.sha256()
    with (folder / "tokens.bin").open("wb") as stream, sentence_writer(folder / SENTENCES_FILE) as write:
        for some in chunks(sentences):
            write(some)
            for chunk in chunks(some, TOKENIZE_AT_ONCE):
                prompted = [next(before) + text for text in chunk]
                rows = tokenizer(prompted, truncation=True, max_length=max_length, return_attention_mask=False)[
                    "input_ids"
                ]
                lengths.extend(map(len, rows))
                flat = np.concatenate([np.asarray(row, dtype=dtype) for row in rows])
                digest.update(flat.tobytes())
                flat.tofile(stream)
    num_tokens = _write_offsets(folder / "offsets.npy", np.frombuffer(lengths, dtype=np.intc), digest)
    meta = {
        "sentences": len(lengths),
        "tokens": num_tokens,
        "dtype": dtype.name,
        "pad_id": int(tokenizer.pad_token_id or 0),
        "mask_id": int(tokenizer.mask_token_id or tokenizer.pad_token_id or 0),
        "special_ids": [int(token) for token in tokenizer.all_special_ids],
        "sha256": digest.hexdigest(),
    }
    dump_json(meta, folder / "meta.json")


def _write_offsets(path: Path, lengths_N: NDArray[np.intc], digest: Any) -> int:
    """Write where each sentence begins and the last one ends, to a file and to the digest; return the latter."""
    end = np.zeros(1, dtype=np.int64)
    shape = (len(lengths_N) + 1,)
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(end.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        digest.update(end.tobytes())
        end.tofile(stream)
        for start in range(0, len(lengths_N), LENGTHS_AT_ONCE):
            ends = end + np.cumsum(lengths_N[start : start + LENGTHS_AT_ONCE], dtype=np.int64)
            digest.update(ends.tobytes())
            ends.tofile(stream)
            end = ends[-1:]
    return int(end[0])


def _folder(cache: Path, key: str) -> Path:
    return cache / "corpora" / key
