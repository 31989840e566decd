"""What mteb sees of a teacher that is no single model: vectors that are looked up, or several encoders joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mteb._create_dataloaders import create_dataloader
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType
from numpy.typing import NDArray

from distilbench.core.errors import UserError, shown
from distilbench.data.vectors import SidedText
from distilbench.evaluation.mteb_encoder import meta_of
from distilbench.evaluation.tasks.by_name import Task
from distilbench.models.sources import Joined, Source, StoredVectors, join


class VectorEncoder(AbsEncoder):  # type: ignore[misc]
    """Finds the vectors of texts in files."""

    def __init__(self, source: StoredVectors, name: str, revision: str) -> None:
        self._source = source
        self.mteb_model_meta = meta_of(name, revision, embed_dim=source.width)

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **_: Any
    ) -> NDArray[np.float32]:
        """Vectors of all texts of a data loader, [texts, width]. Raises `UserError` for a text without one."""
        texts = [(text, prompt_type.value if prompt_type else None) for text in inputs.dataset["text"]]
        rows_B = self._source.vectors.rows_of(texts)
        if (rows_B < 0).any():
            raise UserError(_lacks(self._source, texts, rows_B, task_metadata.name))
        return self._source.rows(rows_B)


class JoinedEncoder(AbsEncoder):  # type: ignore[misc]
    """Several encoders, whose vectors are joined; see `distilbench.models.sources.join`."""

    def __init__(self, members: Sequence[Any], weights: Sequence[float], name: str, revision: str) -> None:
        self._members, self._weights = members, weights
        width = sum(member.mteb_model_meta.embed_dim for member in members)
        self.mteb_model_meta = meta_of(name, revision, embed_dim=width)

    def encode(self, inputs: Any, **options: Any) -> NDArray[np.float32]:
        """Vectors of all texts of a data loader, [texts, width]."""
        return join([member.encode(inputs, **options) for member in self._members], self._weights)


def lacking(source: Source, tasks: Sequence[Task]) -> str | None:
    """Which texts of some tasks have no stored vector, in words; None where all have one."""
    for member in source.members if isinstance(source, Joined) else (source,):
        if not isinstance(member, StoredVectors):
            continue
        for task in tasks:
            texts = list(dict.fromkeys(_texts(task)))
            rows_B = member.vectors.rows_of(texts)
            if (rows_B < 0).any():
                return _lacks(member, texts, rows_B, task.name)
    return None


def _texts(task: Task) -> Iterator[SidedText]:
    """The texts of a task as mteb gives them to a model."""
    for _, split, data in task.splits_read():
        if task.is_retrieval:
            for kind, side in (("corpus", PromptType.document), ("queries", PromptType.query)):
                loader = create_dataloader(data[kind], task_metadata=task.instance.metadata, prompt_type=side)
                yield from ((text, side.value) for text in loader.dataset["text"])
        else:
            yield from task.tables.texts(task.instance, task.tables.embedded(task.instance, split, data))


def _lacks(source: StoredVectors, texts: Sequence[SidedText], rows_B: NDArray[np.int64], task: str) -> str:
    first, side = texts[int((rows_B < 0).argmax())]
    of_side = f" (of the side {side})" if side and source.vectors.has_sides else ""
    return (
        f"teacher.vectors {source.vectors.source} lacks {int((rows_B < 0).sum())} of the {len(texts)} texts of {task}, "
        f"such as {shown(first)}{of_side}"
    )
