"""The teacher's stored signals, one store for each text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distilbench.runs.prepare.teacher import Teacher
from distilbench.runs.prepare.texts import Announce, PlainText, RowsText
from distilbench.runs.prepare.vector_teacher import AnyTeacher, JoinedTeacher, VectorTeacher
from distilbench.study.sections.training import RowType
from distilbench.training.stores.teacher_store import TeacherStore, store_key, store_size, stored_rows
from distilbench.training.stores.vector_store import JoinedStore, SignalStore, VectorStore

AnyText = PlainText | RowsText


class Stores:
    """Opens the stores of a study's teacher, each once."""

    def __init__(self, teacher: AnyTeacher, cache: Path, announce: Announce) -> None:
        self._teacher, self._cache, self._announce = teacher, cache, announce
        self._open: dict[tuple[Path, tuple[str, ...]], SignalStore] = {}

    def folder(self, text: AnyText, kind: RowType) -> Path:
        """What names the store of a text; of a single model, where its signals lie."""
        return self._folder(self._teacher, text.teacher_key, kind)

    def size(self, arrays: Iterable[str], rows: int, kind: RowType) -> int:
        """Bytes on disk of a full store."""
        models = [member for member in self._teacher.members if isinstance(member, Teacher)]
        return sum(store_size(model.shape, arrays, rows, kind) for model in models)

    def rows_there(self, text: AnyText, arrays: tuple[str, ...], kind: RowType) -> int:
        """Sentences of a text whose signals are stored."""
        models = [member for member in self._teacher.members if isinstance(member, Teacher)]
        there = [stored_rows(self._folder(model, text.key_for(model.reader), kind), arrays) for model in models]
        return min(there, default=len(text.corpus))

    def open(self, text: AnyText, arrays: tuple[str, ...], kind: RowType) -> SignalStore:
        """The store of a text, which holds these arrays. Raises `UserError` for texts without a stored vector."""
        place = self.folder(text, kind), arrays
        if place not in self._open:
            self._open[place] = self._opened(self._teacher, text, arrays, kind)
        return self._open[place]

    def _opened(self, teacher: AnyTeacher, text: AnyText, arrays: tuple[str, ...], kind: RowType) -> SignalStore:
        if isinstance(teacher, JoinedTeacher):
            parts = [self._opened(member, text, arrays, kind) for member in teacher.members]
            return JoinedStore(text.corpus, parts, teacher.weights)
        if isinstance(teacher, VectorTeacher):
            return VectorStore(text.corpus, teacher.source, teacher.rows_of(text.name, text.sided_texts))
        folder, corpus = self._folder(teacher, text.key_for(teacher.reader), kind), text.corpus_for(teacher.reader)
        if arrays and not folder.exists():
            size = store_size(teacher.shape, arrays, len(corpus), kind)
            self._announce(f"the signals of {teacher.name} will take {size / 1e6:.3g} MB of disk, in {kind}")
        return TeacherStore(folder, teacher.shape, corpus, arrays, kind, lambda: teacher.encoder)

    def _folder(self, teacher: AnyTeacher, text_key: str, kind: RowType) -> Path:
        return self._cache / "signals" / store_key(teacher.hashes, text_key, kind)
