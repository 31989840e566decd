"""The students of a study, made from its teacher."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Any

from distilbench.models.cutting import build_student
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.static_student import distil_static
from distilbench.runs.prepare.teacher import Teacher
from distilbench.study.budget import Ledger
from distilbench.study.sections.models import StaticSpec, StudentSpec


class Students:
    """Makes the students of a study: equal for equal seeds, whatever method will train them."""

    def __init__(self, teacher: Teacher, spec: StudentSpec, static: StaticSpec | None) -> None:
        self.spec, self._teacher, self._static = spec, teacher, static or StaticSpec()

    def build(self, seed: int) -> Encoder:
        """A fresh student of this seed."""
        return build_student(self._teacher.encoder, self.spec, seed).to(self._teacher.device)

    @cached_property
    def untrained(self) -> Encoder:
        """One student that is never trained, for its shape."""
        return self.build(0)

    def static(self, ledger: Ledger) -> Encoder:
        """The static student, made anew."""
        return distil_static(self._teacher.encoder, self._teacher.tokenizer, self._static, ledger)

    def facts(self) -> dict[str, Any]:
        """The student as a record states it."""
        return {
            **asdict(self.untrained.dims),
            "output_width": self.untrained.output_width(),
            "parameters": num_parameters(self.untrained),
            "pooling": self.spec.pooling,
        }

    def static_facts(self) -> dict[str, Any]:
        """The static student as a record states it."""
        encoder = self._teacher.encoder
        width = min(self._static.width, encoder.dims.width)
        parameters = encoder.backbone.get_input_embeddings().num_embeddings * width
        return {"width": width, "layers": 0, "heads": 0, "output_width": width, "parameters": parameters}
