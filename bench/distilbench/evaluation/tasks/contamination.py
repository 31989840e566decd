"""Training text that contains evaluation text: found, counted and left out.

A training text goes when it equals an evaluation text by its letters and digits in lower case, or when the two share
eight words in a row. Where a task has documents, only equality counts for them: any two texts of one field share some
phrase, and documents are long.

    contamination/<key>/rows.npy     which sentences of the text go
                        counts.json  how many
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.cache import find_or_make
from distilbench.core.hashes import key_of
from distilbench.records.record import dump_json

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task

RULE = 1
"""Raised whenever other texts would be found."""
WORDS_IN_A_ROW = 8
WORD = re.compile(r"\w+")
NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Contamination:
    """What of a text is evaluation text too."""

    looked_at: int
    equal: int
    """Sentences that equal an evaluation text."""
    phrase: int
    """Others that share eight words in a row with one."""
    rows: NDArray[np.int64]
    """Where they are in the text, in rising order."""

    def as_dict(self) -> dict[str, Any]:
        """The counts, for the record."""
        return {"looked_at": self.looked_at, "equal": self.equal, "phrase": self.phrase}

    def __str__(self) -> str:
        return (
            f"{len(self.rows)} of {self.looked_at} sentences are evaluation text and are left out ({self.equal} equal "
            f"one, {self.phrase} share eight words in a row with one)"
        )


def normalised(text: str) -> str:
    """Letters and digits in lower case."""
    return NOT_ALPHANUMERIC.sub("", text.lower())


def phrases(text: str) -> set[str]:
    """Every eight words in a row."""
    words = WORD.findall(text.lower())
    return {" ".join(words[at : at + WORDS_IN_A_ROW]) for at in range(len(words) - WORDS_IN_A_ROW + 1)}


def find(sentences: Iterable[str], short: Iterable[str], documents: Iterable[str] = ()) -> Contamination:
    """Which sentences contain evaluation text: `short` ones (pairs, queries), or whole `documents`."""
    whole: set[str] = set()
    parts: set[str] = set()
    for text in short:
        whole.add(normalised(text))
        parts |= phrases(text)
    whole |= {normalised(text) for text in documents}
    # A text without letters and digits says nothing of where it is from.
    whole -= {""}
    looked_at, equal, phrase, rows = 0, 0, 0, array("q")
    for row, sentence in enumerate(sentences):
        looked_at += 1
        if normalised(sentence) in whole:
            equal += 1
        elif not parts.isdisjoint(phrases(sentence)):
            phrase += 1
        else:
            continue
        rows.append(row)
    return Contamination(looked_at, equal, phrase, np.array(rows, dtype=np.int64))


def find_or_open(text_key: str, sentences: Iterable[str], tasks: Sequence[Task], cache: Path) -> Contamination:
    """What of a tokenised text is evaluation text of some tasks, looked for once."""
    from distilbench.evaluation.tasks.overlap import texts_of

    def write(path: Path) -> None:
        contamination = find(sentences, *texts_of(tasks))
        np.save(path / "rows.npy", contamination.rows)
        dump_json(contamination.as_dict(), path / "counts.json")

    key = key_of(rule=RULE, text=text_key, tasks={task.name: task.data_sha256 for task in tasks})
    folder = find_or_make(cache / "contamination" / key, write, "what is known of evaluation text")
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    return Contamination(**counts, rows=np.load(folder / "rows.npy"))
