"""Prepared runs: immutable values that hold all that one run needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from distilbench.core.hashes import key_of
from distilbench.core.seeds import seeded
from distilbench.data.labelled import Text
from distilbench.models.encoder import output_width
from distilbench.runs.prepare.identity import identity_of
from distilbench.runs.prepare.inputs import Inputs, no_ceiling
from distilbench.study.rows import MethodEntry, Stage
from distilbench.study.study import Run, runs_of
from distilbench.training.stores.teacher_store import array_names
from distilbench.training.stores.vector_store import SignalStore
from distilbench_methods.base import Needs, UnsuitableError


@dataclass(frozen=True)
class PreparedStage:
    """One stage of a run's training."""

    stage: Stage
    needs: Needs
    arrays: tuple[str, ...]
    """What the teacher's store of its text holds: all that the study's rows read of that text between them."""


@dataclass(frozen=True)
class PreparedRun:
    """One cell of the matrix, with all that is needed to train, score and record it."""

    cell: Run
    id: str
    identity: Mapping[str, Any]
    """JSON values; the id is their hash."""
    stages: tuple[PreparedStage, ...]
    inputs: Inputs

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"{self.cell.entry.label} seed {self.cell.seed}"

    @property
    def record_folder(self) -> Path:
        return self.inputs.settings.out / self.inputs.name / self.id

    @property
    def asks_online(self) -> bool:
        """Whether the teacher runs on every batch; not said of recipes, nor where the clock ends the training."""
        by_the_clock = self.inputs.budget.currency == "seconds"
        return not by_the_clock and len(self.stages) == 1 and self.stages[0].needs.teacher_online

    def text(self, stage: PreparedStage) -> Text:
        """What a stage is trained on."""
        return self.inputs.text_of(stage.needs)

    def store(self, stage: PreparedStage) -> SignalStore:
        """The teacher's signals for `text(stage)`."""
        inputs = self.inputs
        return inputs.stores.open(inputs.source_of(stage.needs), stage.arrays, inputs.study.train.signals)


def prepare(parts: Sequence[Inputs]) -> list[list[PreparedRun]]:
    """The runs of each part of a study, in the study's order.

    Where a text is not read yet, ids and signals are those of a text that has the size that was asked for and holds no
    evaluation text.
    """
    staged = [{entry.label: stages_of(part, entry) for entry in part.study.methods} for part in parts]
    arrays = _arrays(parts, staged)
    return [
        [_prepared(part, run, stages.get(run.entry.label, []), arrays) for run in _runs(part)]
        for part, stages in zip(parts, staged, strict=True)
    ]


def _runs(inputs: Inputs) -> list[Run]:
    runs = runs_of(inputs.study)
    return runs if no_ceiling(inputs) is None else [run for run in runs if run.role != "ceiling"]


def prepare_run(inputs: Inputs, run: Run) -> PreparedRun:
    """One run, whether or not its row is listed in the study."""
    stages = stages_of(inputs, run.entry)
    return _prepared(inputs, run, stages, _arrays([inputs], [{run.entry.label: stages}]))


def stages_of(inputs: Inputs, entry: MethodEntry) -> list[tuple[Stage, Needs]]:
    """A row's stages, and what each will ask for. Raises `UnsuitableError` for models that a method does not take."""
    dims, stages = inputs.dims if entry.stages else None, []
    for stage in entry.stages:
        assert dims is not None
        method = stage.build()
        needs = method.needs(dims)
        if needs.teacher_online and not dims.shared_tokens:
            raise UnsuitableError("it compares token by token, and student and teacher cut texts into different tokens")
        stages.append((stage, needs))
        with seeded(0):
            head = method.exported_head(method.build_aux(dims))
        if head is not None:
            dims = replace(dims, student_final=output_width(head, dims.student_final))
    return stages


Arrays = Mapping[Path, tuple[str, ...]]
"""Folder of a store -> the arrays that it holds."""


def _arrays(parts: Sequence[Inputs], staged: Sequence[Mapping[str, list[tuple[Stage, Needs]]]]) -> Arrays:
    """What all rows read between them, so that one pass of the teacher over a text serves them all."""
    names: dict[Path, set[str]] = defaultdict(set)
    for part, rows in zip(parts, staged, strict=True):
        for _, needs in chain.from_iterable(rows.values()):
            names[_store_folder(part, needs)] |= array_names(needs)
    return {folder: tuple(sorted(arrays)) for folder, arrays in names.items()}


def _store_folder(inputs: Inputs, needs: Needs) -> Path:
    return inputs.stores.folder(inputs.source_of(needs), inputs.study.train.signals)


def _prepared(inputs: Inputs, run: Run, stages: list[tuple[Stage, Needs]], arrays: Arrays) -> PreparedRun:
    identity = identity_of(inputs, run, stages)
    prepared = (PreparedStage(stage, needs, arrays[_store_folder(inputs, needs)]) for stage, needs in stages)
    return PreparedRun(run, key_of(**identity), identity, tuple(prepared), inputs)
