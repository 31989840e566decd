"""The teacher of a study, as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.cache import kept_arrays
from distilbench.data.tokenizer import TextReader, load_tokenizer
from distilbench.evaluation.vectors import representation
from distilbench.models.embed import batch_rule
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.model_folder import StoredModel


class Teacher:
    """A stored model that teaches. Its weights are read when they are first needed."""

    def __init__(self, stored: StoredModel, device: str, cache: Path) -> None:
        self.stored, self.device, self._cache = stored, device, cache

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def members(self) -> Sequence[Teacher]:
        return (self,)

    @property
    def source(self) -> StoredModel:
        """What gives its vectors."""
        return self.stored

    @property
    def folder(self) -> Path:
        return self.stored.folder

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What decides its vectors: hashes of weights, tokenizer and structure."""
        return self.stored.hashes()

    @property
    def final_width(self) -> int:
        """Numbers of each of its vectors."""
        return self.shape.output_width()

    @cached_property
    def shape(self) -> Encoder:
        """The model without its weights, on the device `meta`."""
        return self.stored.load(weights=False)

    @cached_property
    def reader(self) -> TextReader:
        """How it reads texts."""
        return self.stored.reader(self.shape)

    @cached_property
    def encoder(self) -> Encoder:
        return self.stored.load().requires_grad_(False).to(self.device)

    @cached_property
    def original(self) -> Encoder:
        """The model that students are cut from: in float32, whatever it teaches in."""
        if self.stored.as_stored == self.stored:
            return self.encoder
        return self.stored.as_stored.load().requires_grad_(False).to(self.device)

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
            **asdict(self.shape.dims),
            "output_width": self.shape.output_width(),
            "parameters": num_parameters(self.shape),
            "sha256": self.hashes["weights"],
        }
