"""A teacher of which only vectors are known, and several teachers joined into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.errors import UserError, shown
from distilbench.data.vectors import SidedText, open_vectors
from distilbench.models.sources import Joined, StoredVectors
from distilbench.runs.prepare.teacher import Teacher
from distilbench.study.sections.models import TeacherSpec


class _VectorsAlone:
    """What a model has and vectors have not."""

    stored = None
    shape = None
    encoder = None
    reader = None


class VectorTeacher(_VectorsAlone):
    """Files of vectors that teach."""

    def __init__(self, spec: TeacherSpec, device: str, cache: Path) -> None:
        self.spec, self.device, self._cache = spec, device, cache

    @property
    def name(self) -> str:
        return Path(str(self.spec.vectors)).name

    @property
    def members(self) -> Sequence[VectorTeacher]:
        return (self,)

    @cached_property
    def source(self) -> StoredVectors:
        """What the files hold. Raises `UserError` where they say nothing clear."""
        found, width = open_vectors(self.spec, self._cache), self.spec.truncate
        if width is not None and width > found.width:
            raise UserError(
                f"teacher.truncate {width} is more than the {found.width} numbers of the vectors in "
                f"{self.spec.vectors}; ask for less"
            )
        return StoredVectors(self.name, found, width)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What decides the vectors."""
        return self.source.hashes()

    @property
    def final_width(self) -> int:
        return self.source.width

    def rows_of(self, key: str, texts: Callable[[], Iterable[SidedText]]) -> NDArray[np.int64]:
        """Where the vectors of a text's sentences lie, [N].

        `key` names the text in a study. Raises `UserError` for sentences without one.
        """
        vectors = self.source.vectors
        rows_N = vectors.rows_of(texts())
        if count := int((rows_N < 0).sum()):
            first, side = next(islice(texts(), int((rows_N < 0).argmax()), None))
            of_side = f" (of the side {side})" if side else " (of no side)" if vectors.has_sides else ""
            more = ", set text.side or labelled.sides" if vectors.has_sides and side is None else ""
            raise UserError(
                f"teacher.vectors {self.spec.vectors} lacks {count} of the {len(rows_N)} texts of {key}, such as "
                f"{shown(first)}{of_side}; encode these too{more}, or leave them out"
            )
        return rows_N

    def facts(self) -> dict[str, Any]:
        """The teacher as a record states it."""
        return {"name": self.name, "output_width": self.final_width, "sha256": self.source.vectors.sha256}


class JoinedTeacher(_VectorsAlone):
    """Several teachers whose vectors stand side by side; see `distilbench.models.sources.join`."""

    def __init__(self, members: Sequence[Teacher | VectorTeacher], weights: Sequence[float] | None) -> None:
        self.members = tuple(members)
        self.weights = tuple(weights or [1.0] * len(members))

    @property
    def device(self) -> str:
        return self.members[0].device

    @property
    def name(self) -> str:
        return " + ".join(member.name for member in self.members)

    @cached_property
    def source(self) -> Joined:
        return Joined(self.name, tuple(member.source for member in self.members), self.weights)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What decides the vectors."""
        return self.source.hashes()

    @property
    def final_width(self) -> int:
        return sum(member.final_width for member in self.members)

    def facts(self) -> dict[str, Any]:
        """The teacher as a record states it."""
        return {"name": self.name, "output_width": self.final_width, "sha256": self.hashes["weights"]}


AnyTeacher = Teacher | VectorTeacher | JoinedTeacher


def as_model(teacher: AnyTeacher) -> Teacher:
    """The teacher, for what is refused where it is no model."""
    assert isinstance(teacher, Teacher)
    return teacher
