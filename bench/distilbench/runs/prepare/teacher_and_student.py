"""The two models of a study: the teacher as it is stored, and the students that are made from it."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.cache import kept_arrays
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import representation
from distilbench.models.cutting import build_student
from distilbench.models.embed import batch_rule
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.models.static_student import distil_static
from distilbench.study.budget import Ledger
from distilbench.study.sections import StaticSpec, StudentSpec


class Teacher:
    """A stored model that teaches. Its weights are read when they are first needed."""

    def __init__(self, stored: StoredModel, device: str, cache: Path) -> None:
        self.stored, self.device, self._cache = stored, device, cache

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def folder(self) -> Path:
        return self.stored.folder

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What decides its vectors: hashes of weights, tokenizer and structure."""
        return self.stored.hashes()

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(self.folder).requires_grad_(False).to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    @cached_property
    def views(self) -> dict[str, NDArray[np.float64]]:
        """Its vectors and layers of the sentences that every model is described by; see `representation.views`."""

        def make() -> dict[str, NDArray[np.float64]]:
            # A tokenizer of its own: encoding leaves settings in it, which would be exported with the students.
            return representation.views(self.encoder, load_tokenizer(self.folder))

        texts = representation.sample().texts
        parts = {"teacher": self.hashes, "texts": texts, "batches": batch_rule(self.device)}
        return kept_arrays(self._cache, "views", make, **parts)

    def facts(self) -> dict[str, Any]:
        """The teacher as a record states it."""
        return {
            "name": self.name,
            **asdict(self.encoder.dims),
            "output_width": self.encoder.output_width(),
            "parameters": num_parameters(self.encoder),
            "sha256": self.hashes["weights"],
        }


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
