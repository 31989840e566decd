"""Student queries on the teacher's index: what a service gets whose documents stay as the teacher embedded them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from numpy.typing import NDArray

from distilbench.core.cache import kept_arrays
from distilbench.core.seeds import preserved_rng
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.evaluate import evaluate
from distilbench.evaluation.mteb_encoder import BenchEncoder, in_precision, prompt_of
from distilbench.evaluation.tasks.by_name import Task
from distilbench.models.embed import batch_rule, embed
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import StoredModel
from distilbench.study.sections.training import Precision

Embedder = Callable[[list[str], TaskMetadata], NDArray[np.float32]]
"""Gives the vectors of a task's documents, [texts, width]."""


class AsymmetricEncoder(BenchEncoder):
    """Queries by a student, documents by whatever else gives vectors of its width."""

    def __init__(self, student: Encoder, tokenizer: Any, documents: Embedder) -> None:
        super().__init__(student, tokenizer, "asymmetric", "asymmetric")
        self._documents = documents

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **options: Any
    ) -> NDArray[np.float32]:
        """As `BenchEncoder.encode`; documents are known by mteb's `prompt_type`."""
        if prompt_type == PromptType.document:
            return self._documents(list(inputs.dataset["text"]), task_metadata)
        return super().encode(inputs, task_metadata=task_metadata, prompt_type=prompt_type, **options)


class TeacherIndex:
    """A teacher's vectors of a task's documents, computed once and kept in the cache for all students."""

    def __init__(self, stored: StoredModel, shape: Encoder, device: str, precision: Precision, cache: Path) -> None:
        """The teacher is loaded when vectors are to be computed; of its `shape`, the prompts count."""
        self._stored, self._shape = stored, shape
        self._device, self._precision, self._cache = device, precision, cache

    def __call__(self, texts: list[str], task: TaskMetadata) -> NDArray[np.float32]:
        """Vectors of some documents of a task, [texts, width], float32."""
        prompt = prompt_of(self._shape, task, PromptType.document)
        parts = {
            "teacher": self._stored.hashes(),
            "texts": [prompt + text for text in texts],
            "precision": self._precision,
            "batches": batch_rule(self._device),
        }
        return kept_arrays(self._cache, "indexes", lambda: {"vectors": self._embed(texts, prompt)}, **parts)["vectors"]

    def _embed(self, texts: list[str], prompt: str) -> NDArray[np.float32]:
        return embed(self._teacher, load_tokenizer(self._stored.folder), texts, prompt)

    @functools.cached_property
    def _teacher(self) -> Encoder:
        return in_precision(self._stored.load().to(self._device), self._precision)


def asymmetric_scores(
    student: StoredModel, index: TeacherIndex, tasks: list[Task], device: str, precision: Precision = "fp32"
) -> dict[str, float]:
    """Retrieval task -> main score, from 0 to 1, of the student's queries among the teacher's documents.

    The student must ship vectors as wide as the teacher's, and computes them in this precision. Global random state is
    left as it was.
    """
    tasks = [task for task in tasks if task.is_retrieval]
    if not tasks:
        return {}
    with preserved_rng():
        model, tokenizer = in_precision(student.load().to(device), precision), load_tokenizer(student.folder)
        encoder = AsymmetricEncoder(model, tokenizer, index)
        return {task.name: evaluate(encoder, task).metrics["main_score"] for task in tasks}
