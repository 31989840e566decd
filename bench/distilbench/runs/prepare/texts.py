"""The texts of a study: their keys at once, the texts themselves when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distilbench.core.cache import kept_arrays
from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.data import labelled, plain_text
from distilbench.data.corpus import Corpus, is_built, texts_of
from distilbench.data.labelled import LabelledText, RowsRequest
from distilbench.data.plain_text import TextRequest
from distilbench.data.tokenizer import TextReader
from distilbench.data.vectors import SidedText
from distilbench.evaluation.tasks.contamination import Contamination, find_or_open
from distilbench.models.embed import batch_rule
from distilbench.runs.prepare.students import Students
from distilbench.runs.prepare.vector_teacher import AnyTeacher, as_model
from distilbench.study.sections.texts import DevSpec
from distilbench.training.dev.response import DevSet, views_of

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task

Announce = Callable[[str], None]
Tasks = Callable[[], "list[Task]"]
"""The tasks of a study, loaded when they are first asked for."""
UNKNOWN_SIZE = 100_000
_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


def expected_size(*asked: int | None) -> int:
    """Sentences or rows that a text is taken to have before it is read: the least that is asked for."""
    return min((size for size in asked if size is not None), default=UNKNOWN_SIZE)


def teacher_key(text: PlainText | RowsText, teacher: AnyTeacher, students: Students) -> str:
    """Of a text as a teacher reads it; of one that reads no texts, as the students do."""
    keys = [text.key_for(member.reader or students.reader) for member in teacher.members]
    return keys[0] if len(keys) == 1 else key_of(members=keys)


class PlainText:
    """Sentences to train on, without those that are evaluation text of the study's tasks."""

    def __init__(
        self,
        request: TextRequest,
        students: Students,
        teacher: AnyTeacher,
        tasks: Tasks,
        cache: Path,
        announce: Announce,
    ) -> None:
        self.request, self._students, self._teacher = request, students, teacher
        self._tasks, self._cache, self._announce = tasks, cache, announce
        self._source_keys: dict[tuple[str, ...], str] = {}

    @property
    def source_key(self) -> str:
        """Of the text as its sources have it."""
        return self._source_key(self._students.reader)

    @property
    def key(self) -> str:
        """Of the text without evaluation text; while it is not read, which that is is not known."""
        return self.key_for(self._students.reader)

    @property
    def teacher_key(self) -> str:
        """Of the same text as the teacher reads it."""
        return teacher_key(self, self._teacher, self._students)

    def key_for(self, reader: TextReader) -> str:
        """Of the same text as a model reads it."""
        source_key = self._source_key(reader)
        return self._without_evaluation_text(reader, source_key)[0] if self.is_built else source_key

    def _source_key(self, reader: TextReader) -> str:
        # To find it, all of the text is hashed.
        if reader.identity not in self._source_keys:
            self._source_keys[reader.identity] = plain_text.corpus_key(self.request, reader)
        return self._source_keys[reader.identity]

    @property
    def is_built(self) -> bool:
        return is_built(self._cache, self.source_key)

    @property
    def size(self) -> int:
        """Sentences; while it is not read, as many as are asked for."""
        return len(self.corpus) if self.is_built else expected_size(self.request.spec.sentences, self.request.limit)

    @property
    def name(self) -> str:
        """As messages name it."""
        return "text.source"

    def sided_texts(self) -> Iterator[SidedText]:
        """The sentences, and the side of each."""
        return ((text, self.request.spec.side) for text in texts_of(self._cache, self.corpus.key))

    @cached_property
    def contamination(self) -> Contamination | None:
        """What of the text is evaluation text; None where the study keeps it."""
        if self.request.spec.evaluation_text == "keep":
            return None
        plain_text.build_or_open(self.request, self._students.reader, self.source_key, self._cache)
        sentences = texts_of(self._cache, self.source_key)
        return find_or_open(self.source_key, sentences, self._tasks(), self._cache)

    @cached_property
    def corpus(self) -> Corpus:
        """The sentences as the students read them."""
        return self._read_by(self._students.reader)

    def corpus_for(self, reader: TextReader) -> Corpus:
        """The same sentences as a model reads them."""
        return self.corpus if self.key_for(reader) == self.key else self._read_by(reader)

    def _read_by(self, reader: TextReader) -> Corpus:
        key = self._source_key(reader)
        if not is_built(self._cache, key):
            self._announce("reading and tokenising the text")
        whole = plain_text.build_or_open(self.request, reader, key, self._cache)
        _, open_rest = self._without_evaluation_text(reader, key)
        return whole if open_rest is None else open_rest()

    def _without_evaluation_text(self, reader: TextReader, key: str) -> tuple[str, Callable[[], Corpus] | None]:
        seen = self.contamination
        if seen is None or not len(seen.rows):
            return key, None
        return plain_text.without(self.request, reader, key, seen.rows, seen.looked_at, self._cache)


class RowsText:
    """Rows of texts that belong together, to train on or to watch students by."""

    def __init__(
        self, request: RowsRequest, students: Students, teacher: AnyTeacher, tasks: Tasks, cache: Path
    ) -> None:
        self.request, self._students, self._teacher = request, students, teacher
        self._tasks, self._cache = tasks, cache
        self._keys: dict[tuple[str, ...], str] = {}

    @property
    def key(self) -> str:
        return self.key_for(self._students.reader)

    @property
    def teacher_key(self) -> str:
        """Of the same rows as the teacher reads them."""
        return teacher_key(self, self._teacher, self._students)

    def key_for(self, reader: TextReader) -> str:
        """Of the same rows as a model reads them."""
        if reader.identity not in self._keys:
            self._keys[reader.identity] = labelled.labelled_key(self.request, reader)
        return self._keys[reader.identity]

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
        """The rows as the students read them."""
        return labelled.build_or_open(self.request, self._students.reader, self.key, self._cache)

    def text_for(self, reader: TextReader) -> LabelledText:
        """The same rows as a model reads them."""
        key = self.key_for(reader)
        return self.text if key == self.key else labelled.build_or_open(self.request, reader, key, self._cache)

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"{self.request.section}.source"

    def sided_texts(self) -> Iterator[SidedText]:
        """The distinct texts of all rows, and the side of each; one that is on two sides is there for each."""
        column_N = np.empty(len(self.corpus), dtype=np.int64)
        for column, places in enumerate(self.text.rows_RC.T):
            column_N[places] = column
        names = labelled.sides_of(self.request.spec)
        return zip(self.sentences(), (names[column] for column in column_N), strict=True)

    @property
    def corpus(self) -> Corpus:
        return self.text.corpus

    def corpus_for(self, reader: TextReader) -> Corpus:
        """The texts of the same rows as a model reads them."""
        return self.text_for(reader).corpus

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


class DevText(RowsText):
    """Rows of texts by which students are watched, without those that are evaluation text where the study says so."""

    @property
    def watched_key(self) -> str:
        """Of the rows that are used; while they are not read, which these are is not known."""
        rows = self._removed_rows if is_built(self._cache, self.key) else _NO_ROWS
        return key_of(rows=self.key, without=rows.tolist()) if len(rows) else self.key

    @property
    def removed(self) -> int:
        """Rows that are left out."""
        return len(self._removed_rows)

    @cached_property
    def dev_set(self) -> DevSet:
        """The pairs that these rows make, as the teacher sees them.

        Raises `UserError` where every row is evaluation text.
        """
        if self.removed == len(self.text):
            raise UserError(
                f"{self.name}: every row has text of the study's tasks, and dev.evaluation_text is remove; give other "
                "pairs"
            )
        teacher = as_model(self._teacher)
        parts = {"teacher": teacher.hashes, "dev": self.teacher_key, "batches": batch_rule(teacher.device)}
        if self.removed:
            parts["without"] = self._removed_rows.tolist()
        views = kept_arrays(
            self._cache, "dev", lambda: views_of(self._kept(self.text_for(teacher.reader)), teacher.encoder), **parts
        )
        return DevSet.of(self._kept(self.text), views)

    @cached_property
    def _removed_rows(self) -> NDArray[np.int64]:
        spec = self.request.spec
        if not isinstance(spec, DevSpec) or spec.evaluation_text == "keep":
            return _NO_ROWS
        rows_RC = self.text.rows_RC
        found = find_or_open(self.key, self.sentences(), self._tasks(), self._cache).rows
        return np.flatnonzero(np.isin(rows_RC, found).any(axis=1))

    def _kept(self, text: LabelledText) -> LabelledText:
        rows_RC = np.delete(text.rows_RC, self._removed_rows, axis=0)
        scores = None if text.scores is None else np.delete(text.scores, self._removed_rows, axis=0)
        return replace(text, rows_RC=rows_RC, scores=scores)
