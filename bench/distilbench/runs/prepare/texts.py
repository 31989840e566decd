"""The texts of a study: their keys at once, the texts themselves when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench.core.cache import kept_arrays
from distilbench.data import labelled, plain_text
from distilbench.data.corpus import Corpus, is_built, texts_of
from distilbench.data.labelled import LabelledText, RowsRequest
from distilbench.data.plain_text import TextRequest
from distilbench.evaluation.tasks.contamination import Contamination, find_or_open
from distilbench.models.embed import batch_rule
from distilbench.runs.prepare.teacher import Teacher
from distilbench.training.dev import DevSet, views_of

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task

Announce = Callable[[str], None]
Tasks = Callable[[], "list[Task]"]
"""The tasks of a study, loaded when they are first asked for."""
UNKNOWN_SIZE = 100_000


def expected_size(*asked: int | None) -> int:
    """Sentences or rows that a text is taken to have before it is read: the least that is asked for."""
    return min((size for size in asked if size is not None), default=UNKNOWN_SIZE)


class PlainText:
    """Sentences to train on, without those that are evaluation text of the study's tasks."""

    def __init__(self, request: TextRequest, teacher: Teacher, tasks: Tasks, cache: Path, announce: Announce) -> None:
        self.request, self._teacher, self._tasks = request, teacher, tasks
        self._cache, self._announce = cache, announce

    @cached_property
    def source_key(self) -> str:
        """Of the text as its sources have it."""
        return plain_text.corpus_key(self.request, self._teacher.hashes["tokenizer"])

    @property
    def key(self) -> str:
        """Of the text without evaluation text; while it is not read, which that is is not known."""
        return self._without_evaluation_text[0] if self.is_built else self.source_key

    @property
    def is_built(self) -> bool:
        return is_built(self._cache, self.source_key)

    @property
    def size(self) -> int:
        """Sentences; while it is not read, as many as are asked for."""
        return len(self.corpus) if self.is_built else expected_size(self.request.spec.sentences, self.request.limit)

    @cached_property
    def contamination(self) -> Contamination | None:
        """What of the text is evaluation text; None where the study keeps it."""
        if self.request.spec.evaluation_text == "keep":
            return None
        sentences = texts_of(self._cache, self._whole.key)
        return find_or_open(self.source_key, sentences, self._tasks(), self._cache)

    @cached_property
    def corpus(self) -> Corpus:
        _, open_rest = self._without_evaluation_text
        return self._whole if open_rest is None else open_rest()

    @cached_property
    def _whole(self) -> Corpus:
        """The text as its sources have it, evaluation text and all."""
        if not self.is_built:
            self._announce("reading and tokenising the text")
        return plain_text.build_or_open(self.request, self._teacher.folder, self.source_key, self._cache)

    @cached_property
    def _without_evaluation_text(self) -> tuple[str, Callable[[], Corpus] | None]:
        contamination = self.contamination
        if contamination is None or not len(contamination.rows):
            return self.source_key, None
        return plain_text.without(
            self.request,
            self._teacher.folder,
            self.source_key,
            contamination.rows,
            contamination.looked_at,
            self._cache,
        )


class RowsText:
    """Rows of texts that belong together, to train on or to watch students by."""

    def __init__(self, request: RowsRequest, teacher: Teacher, tasks: Tasks, cache: Path) -> None:
        self.request, self._teacher, self._tasks, self._cache = request, teacher, tasks, cache

    @cached_property
    def key(self) -> str:
        return labelled.labelled_key(self.request, self._teacher.hashes["tokenizer"])

    @property
    def columns(self) -> int:
        """Texts in each row."""
        return labelled.columns_of(self.request.spec)

    @property
    def size(self) -> int:
        """Rows; while the text is not read, as many as are asked for."""
        if is_built(self._cache, self.key):
            return len(self.text)
        return expected_size(self.request.spec.rows, self.request.limit)

    @cached_property
    def text(self) -> LabelledText:
        return labelled.build_or_open(self.request, self._teacher.folder, self.key, self._cache)

    @property
    def corpus(self) -> Corpus:
        return self.text.corpus

    def sentences(self) -> Iterator[str]:
        """The distinct texts of all rows, which must have been read."""
        return texts_of(self._cache, self.key)

    @cached_property
    def pairs_seen(self) -> dict[str, int]:
        """Task -> how many of its pairs stand together in a row; they are left where they are."""
        from distilbench.evaluation.tasks.overlap import pairs_seen

        rows, texts = self.text.rows_RC, list(self.sentences())
        pairs = [
            (texts[first], texts[other])
            for column in rows.T[1:]
            for first, other in zip(rows[:, 0], column, strict=True)
        ]
        return pairs_seen(self._tasks(), pairs)

    @cached_property
    def dev_set(self) -> DevSet:
        """The pairs that these rows make, as the teacher sees them."""
        parts = {"teacher": self._teacher.hashes, "dev": self.key, "batches": batch_rule(self._teacher.device)}
        views = kept_arrays(self._cache, "dev", lambda: views_of(self.text, self._teacher.encoder), **parts)
        return DevSet.of(self.text, views)
