"""The students of a study: cut from its teacher, or another model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from distilbench.data.tokenizer import TextReader
from distilbench.models.cutting import build_student, cut_model, directions_for
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.models.static_student import distil_static
from distilbench.runs.prepare.teacher import Teacher
from distilbench.runs.prepare.vector_teacher import AnyTeacher
from distilbench.study.budget import Ledger
from distilbench.study.sections.models import StaticSpec, StudentSpec


class Students:
    """Makes the students of a study: equal for equal seeds, whatever method will train them."""

    def __init__(
        self,
        teacher: AnyTeacher,
        spec: StudentSpec,
        static: StaticSpec | None,
        own: StoredModel | None = None,
    ) -> None:
        """`own` is the model that they start from where they are not cut from the teacher."""
        self.spec, self.own, self._maker, self._static = spec, own, teacher, static or StaticSpec()
        # The runs of a seed follow each other.
        self._latest = lru_cache(maxsize=1)(self._make)

    @property
    def _teacher(self) -> Teacher:
        """The model that students are cut from, and static ones made from."""
        assert isinstance(self._maker, Teacher), "what needs a model is refused where the teacher is none"
        return self._maker

    @property
    def folder(self) -> Path:
        """Where their tokenizer lies, and the card of the model that they start from."""
        return self._teacher.folder if self.own is None else self.own.folder

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of the model that they start from, where that is not the teacher."""
        return {} if self.own is None else self.own.hashes()

    @cached_property
    def reader(self) -> TextReader:
        """How they read texts."""
        source = self._teacher.reader if self.own is None else self.own.reader()
        if self.spec.prompts is None:
            return source
        return TextReader(source.folder, source.tokenizer_sha256, self.spec.prompts)

    def build(self, seed: int) -> Encoder:
        """A fresh student of this seed."""
        return deepcopy(self._latest(seed)).to(self._maker.device)

    def _make(self, seed: int) -> Encoder:
        if self.own is None:
            student = build_student(self._teacher.original, self.spec, seed, self._directions)
        else:
            student = cut_model(load_encoder(self.own.folder), self.spec, seed)
        return self._prompted(student)

    @cached_property
    def _directions(self) -> Tensor | None:
        return directions_for(self._teacher.original, self.spec)

    def _prompted(self, student: Encoder) -> Encoder:
        if self.spec.prompts is not None:
            student.prompts, student.default_prompt_name = dict(self.spec.prompts), None
        return student

    @cached_property
    def shape(self) -> Encoder:
        """One student without its weights, on the device `meta`, made without the teacher's."""
        if self.own is None:
            return self._prompted(build_student(self._teacher.shape, self.spec, 0))
        return self._prompted(cut_model(load_encoder(self.own.folder, weights=False), self.spec, 0))

    @cached_property
    def untrained(self) -> Encoder:
        """One student that is never trained."""
        return self.build(0)

    def static(self, ledger: Ledger) -> Encoder:
        """The static student, made anew."""
        return distil_static(self._teacher.original, self._teacher.reader.tokenizer(), self._static, ledger)

    def facts(self) -> dict[str, Any]:
        """The student as a record states it."""
        own = {} if self.own is None else {"name": self.own.name, "sha256": self.hashes["weights"]}
        return {
            **own,
            **asdict(self.shape.dims),
            "output_width": self.shape.output_width(),
            "parameters": num_parameters(self.shape),
            "pooling": self.shape.pooling,
        }

    def static_facts(self) -> dict[str, Any]:
        """The static student as a record states it."""
        encoder = self._teacher.shape
        width = min(self._static.width, encoder.dims.width)
        parameters = encoder.backbone.get_input_embeddings().num_embeddings * width
        return {"width": width, "layers": 0, "heads": 0, "output_width": width, "parameters": parameters}
