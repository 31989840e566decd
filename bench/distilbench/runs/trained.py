"""A run's model: found in the cache, or trained, stage by stage, and left there.

runs/<run_id>/model/          what `SentenceTransformer` loads
              curve.parquet   see `distilbench.records.record`
              training.json   run_id, status, ledger, dev scores, and hashes of what the training began with
              SHA256SUMS      of these files: a damaged model is noticed, and trained again
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from distilbench.core.hashes import key_of
from distilbench.core.sealed import clear_up, is_sealed, is_sound, write_sealed
from distilbench.core.seeds import seeded, stage_seed
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.export import export, licence_of, model_card
from distilbench.models.model_folder import StoredModel
from distilbench.records.record import CURVE_FILE, Status, dump_json
from distilbench.runs.workbench import Workbench
from distilbench.study.budget import Ledger, peak_memory_bytes
from distilbench.study.study import Run
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench.training.dev import Response
from distilbench.training.loop import Cell, Trained, rehearse, train
from distilbench.training.teacher_store import array_names

MODEL_FOLDER, TRAINING_FILE = "model", "training.json"

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Training:
    """What a run's training left in the cache."""

    model: StoredModel
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    status: Status = "completed"
    response: list[dict[str, Any]] = field(default_factory=list)
    """Dev scores at shares of the budget."""
    identity: dict[str, str] = field(default_factory=dict)
    """`start`: hash of the student's first weights. `batches`: hash over the rows of all batches, in their order."""


def trained_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's model lies in the cache."""
    return bench.settings.cache / "runs" / bench.run_id(run)


def is_trained(bench: Workbench, run: Run) -> bool:
    """Whether a run's model lies in the cache; whether it is damaged is not looked at."""
    return is_sealed(trained_folder(bench, run))


def training_of(bench: Workbench, run: Run, ledger: Ledger, on_progress: Progress) -> Training:
    """A run's model, trained if it is not in the cache undamaged. The caller holds the run's lock.

    The run's new ledger becomes that of its training, whenever that was.
    """
    if run.role == "ceiling":
        return Training(bench.teacher_model)
    folder, checkpoints = trained_folder(bench, run), _checkpoints(bench, run)
    if not (is_sound(folder, "the model") and _is_of(folder, bench.run_id(run))):
        clear_up(folder)
        _train(bench, run, folder, ledger, checkpoints, on_progress)
    checkpoints.drop()
    stored = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    stored.pop("run_id", None)
    ledger.restore(stored.pop("ledger"))
    curve = pd.read_parquet(folder / CURVE_FILE) if (folder / CURVE_FILE).is_file() else pd.DataFrame()
    return Training(StoredModel(bench.run_id(run), folder / MODEL_FOLDER), curve, **stored)


def _is_of(folder: Path, run_id: str) -> bool:
    """Whether a model that is whole is the one that its folder is named after; early versions did not write that."""
    written: str = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8")).get("run_id", run_id)
    return written == run_id


def rehearse_run(bench: Workbench, run: Run) -> None:
    """Compute all teacher signals that the training of a run will read, unless its model is there.

    Whoever trains it later, and in whatever order with others, then reads the same bits.
    """
    if run.role != "method" or is_trained(bench, run):
        return
    reads = [needs for _, needs in bench.stages(run.entry) if array_names(needs)]
    if not all(bench.store_of(needs).is_full() for needs in reads):
        # Only the student's shape counts; a recipe puts heads on it.
        student = deepcopy(bench.untrained)
        _Stages(bench, run, student, Ledger(), _checkpoints(bench, run)).rehearse()


def _checkpoints(bench: Workbench, run: Run) -> Checkpoints:
    folder = bench.settings.cache / "checkpoints" / bench.run_id(run)
    return Checkpoints(folder, bench.settings.checkpoint_seconds)


def _train(
    bench: Workbench, run: Run, folder: Path, ledger: Ledger, checkpoints: Checkpoints, on_progress: Progress
) -> None:
    with ledger.phase("setup"):
        student = bench.student(run.seed) if run.role != "reference" else bench.static_student(ledger)
    identity = {"start": _sha256(student)}
    stages = _Stages(bench, run, student, ledger, checkpoints)
    if run.role == "method":
        stages.train(on_progress)
        identity["batches"] = key_of(stages=stages.batches)
    ledger.peak_memory_bytes = max(ledger.peak_memory_bytes, peak_memory_bytes())
    facts = {
        "run_id": bench.run_id(run),
        "status": "diverged" if stages.diverged else "completed",
        "ledger": ledger.as_dict(),
        "response": stages.response.rows,
        "identity": identity,
    }

    def write(path: Path) -> None:
        export(student, bench.tokenizer, path / MODEL_FOLDER, _card(bench, run))
        if stages.curve:
            pd.DataFrame(stages.curve).to_parquet(path / CURVE_FILE, index=False)
        dump_json(facts, path / TRAINING_FILE)

    write_sealed(folder, write)


class _Stages:
    """The training of one run: its stages one after the other, each with its share of the budget."""

    def __init__(self, bench: Workbench, run: Run, student: Encoder, ledger: Ledger, checkpoints: Checkpoints) -> None:
        self.bench, self.run, self.student, self.ledger, self.checkpoints = bench, run, student, ledger, checkpoints
        points = bench.study.dev.points if bench.study.dev else 0
        self.response = Response(bench.dev, bench.budget, points) if run.role == "method" else Response()
        self.curve: list[dict[str, float]] = []
        self.batches: list[str] = []
        self.diverged = False

    def train(self, on_progress: Progress) -> None:
        """Train by each stage in turn; from where a killed process left off, where one did."""
        resumed = self.checkpoints.load()
        if resumed is not None:
            self.curve, self.batches = resumed.facts["context"]["curve"], resumed.facts["context"]["batches"]
        begun, spent = len(self.batches), 0.0
        for number, stage in enumerate(self.run.entry.stages):
            if number < begun:
                self._take_over(number)
            else:
                self.checkpoints.context = {"curve": self.curve, "batches": self.batches}
                report = partial(_report_share, on_progress, spent, stage.share)
                trained = self._train_stage(number, spent, resumed if number == begun else None, report)
                self.curve = self.curve + [{"stage": number + 1, **row} for row in trained.curve]
                self.batches = [*self.batches, trained.batches_sha256]
                self.diverged = trained.diverged
            if self.diverged:
                return
            spent += stage.share

    def rehearse(self) -> None:
        """Fill the teacher's stores with all that the stages will read."""
        spent = 0.0
        for number, stage in enumerate(self.run.entry.stages):
            rehearse(self._cell(number, spent), self.ledger)
            self._take_over(number)
            spent += stage.share

    def _train_stage(self, number: int, spent: float, resumed: Snapshot | None, on_progress: Progress) -> Trained:
        with self.ledger.phase("setup"):
            cell = self._cell(number, spent)
        trained = train(
            cell, self.ledger, on_progress, response=self.response, checkpoints=self.checkpoints, resumed=resumed
        )
        head = cell.method.exported_head(trained.aux)
        if head is not None:
            put_on(self.student, head)
            self.ledger.extra_parameters -= num_parameters(head)
        return trained

    def _cell(self, number: int, spent: float) -> Cell:
        bench, stage = self.bench, self.run.entry.stages[number]
        method, spec = stage.build(), bench.study.train
        if number < len(self.run.entry.stages) - 1:
            spec = spec.model_copy(update={"checkpoint": "last"})
        needs = method.needs(bench.dims_for(self.student))
        return Cell(
            method=method,
            student=self.student,
            teacher=bench.teacher,
            text=bench.text_of(needs),
            store=bench.store_of(needs),
            spec=spec,
            budget=bench.budget.share(spent, spent + stage.share),
            seed=stage_seed(self.run.seed, number),
            company=bench.company,
        )

    def _take_over(self, number: int) -> None:
        """Give the student the shape that a stage left it in; its weights come with the snapshot."""
        method = self.run.entry.stages[number].build()
        with seeded(0):
            head = method.exported_head(method.build_aux(self.bench.dims_for(self.student)))
        if head is not None:
            put_on(self.student, head.to(self.student.device))


def _report_share(on_progress: Progress, before: float, own: float, share: float) -> None:
    on_progress(before + own * share)


def put_on(student: Encoder, head: nn.Module) -> None:
    """Have a student ship a head behind what it ships so far."""
    student.head = nn.Sequential(*_parts(student.head), *_parts(head))


def _parts(head: nn.Module) -> list[nn.Module]:
    """The modules of a head in a row; nothing for the head that does nothing."""
    if isinstance(head, nn.Identity):
        return []
    return list(head) if isinstance(head, nn.Sequential) else [head]


def _sha256(student: Encoder) -> str:
    digest = hashlib.sha256()
    for name, value in student.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _card(bench: Workbench, run: Run) -> str:
    return model_card(
        {
            "Run": bench.run_id(run),
            "Study": bench.name,
            "Method": run.entry.name,
            "Hyperparameters": json.dumps(run.entry.hyperparameters, sort_keys=True),
            "Teacher": bench.teacher_model.name,
            "Text": bench.study.text.source,
            "Budget": f"{bench.budget.amount:g} {bench.budget.currency}" if run.role == "method" else "none",
            "Seed": run.seed,
        },
        licence_of(bench.teacher_model.folder),
    )
