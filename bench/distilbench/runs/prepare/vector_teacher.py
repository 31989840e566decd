"""A teacher of which only vectors are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.errors import UserError, shown
from distilbench.data.vectors import SidedText, TextVectors, open_vectors
from distilbench.runs.prepare.teacher import Teacher
from distilbench.study.sections.models import VectorsSpec


class VectorTeacher:
    """Files of vectors that teach. What a model has beside them, it has not: what is None here."""

    stored = None
    shape = None
    encoder = None
    reader = None

    def __init__(self, spec: VectorsSpec, device: str, cache: Path) -> None:
        self.spec, self.device, self._cache = spec, device, cache

    @property
    def name(self) -> str:
        return Path(self.spec.vectors).name

    @cached_property
    def vectors(self) -> TextVectors:
        """What the files hold. Raises `UserError` where they say nothing clear."""
        return open_vectors(self.spec, self._cache)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What decides the vectors."""
        return {"vectors": self.vectors.sha256, "columns": f"{self.spec.text} {self.spec.vector} {self.spec.side}"}

    @property
    def final_width(self) -> int:
        return self.vectors.width

    def rows_of(self, key: str, texts: Callable[[], Iterable[SidedText]]) -> NDArray[np.int64]:
        """Where the vectors of a text's sentences lie, [N].

        `key` names the text in a study. Raises `UserError` for sentences without one.
        """
        if self.vectors.has_sides and any(side is None for _, side in texts()):
            raise UserError(
                f"teacher.vectors {self.spec.vectors} are found by text and side, and the texts of {key} have none; "
                "set text.side or labelled.sides, or leave teacher.side out"
            )
        rows_N = self.vectors.rows_of(texts())
        if count := int((rows_N < 0).sum()):
            first, _ = next(islice(texts(), int((rows_N < 0).argmax()), None))
            raise UserError(
                f"teacher.vectors {self.spec.vectors} lacks {count} of the {len(rows_N)} texts of {key}, such as "
                f"{shown(first)}; encode these too, or leave them out"
            )
        return rows_N

    def facts(self) -> dict[str, Any]:
        """The teacher as a record states it."""
        return {"name": self.name, "output_width": self.final_width, "sha256": self.vectors.sha256}


AnyTeacher = Teacher | VectorTeacher


def as_model(teacher: AnyTeacher) -> Teacher:
    """The teacher, for what is refused where it is no model."""
    assert isinstance(teacher, Teacher)
    return teacher
