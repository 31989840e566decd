"""A run's model: found in the cache, or trained, stage by stage, and left there.

runs/<run_id>/model/          what `SentenceTransformer` loads
              curve.parquet   see `distilbench.records.record`
              training.json   status, ledger, dev scores, and hashes of what the training began with
              KEY, SHA256SUMS see `distilbench.core.cache`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from distilbench.core import cache
from distilbench.core.hashes import key_of
from distilbench.core.seeds import seeded, stage_seed
from distilbench.models.encoder import Encoder, num_parameters
from distilbench.models.export import export, licence_of, model_card
from distilbench.models.model_folder import StoredModel
from distilbench.models.sources import Source
from distilbench.records.record import CURVE_FILE, dump_json
from distilbench.records.schema import Status
from distilbench.runs.prepare.inputs import dims_for, shared_tokens
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.study.budget import Ledger, peak_memory_bytes, phase, restore
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench.training.dev.response import Response
from distilbench.training.job import Trained, TrainingJob
from distilbench.training.loop import OnRow, rehearse, train
from distilbench.training.online import ALONE, Company
from distilbench.training.stores.teacher_store import array_names

MODEL_FOLDER, TRAINING_FILE = "model", "training.json"

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Training:
    """What a run's training left in the cache."""

    model: Source
    """Of a ceiling, the teacher, which may be no model."""
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    status: Status = "completed"
    response: list[dict[str, Any]] = field(default_factory=list)
    """Dev scores at shares of the budget."""
    identity: dict[str, str] = field(default_factory=dict)
    """`start`: hash of the student's first weights. `batches`: hash over the rows of all batches, in their order."""


def trained_folder(run: PreparedRun) -> Path:
    """Where a run's model lies in the cache."""
    return run.inputs.settings.cache / "runs" / run.id


def is_trained(run: PreparedRun) -> bool:
    """Whether a run's model lies in the cache; whether it is damaged is not looked at."""
    return cache.is_there(trained_folder(run))


def ledger_so_far(run: PreparedRun) -> Ledger | None:
    """What a training that was cut short had spent at its checkpoint; None where there is none to go on from."""
    facts = _checkpoints(run).peek()
    if facts is None:
        return None
    ledger = Ledger()
    restore(ledger, facts["ledger"])
    return ledger


def training_of(
    run: PreparedRun,
    ledger: Ledger,
    on_progress: Progress,
    company: Company = ALONE,
    timeout: float = cache.WAIT_FOREVER,
    on_row: OnRow = lambda _: None,
) -> Training:
    """A run's model, trained if it is not in the cache undamaged.

    The run's new ledger becomes that of its training, whenever that was. `company`: trainings that go on beside it.
    Raises `Timeout` when another process has been training the run for so many seconds.
    """
    if run.cell.role == "ceiling":
        return Training(run.inputs.teacher.source)
    folder, checkpoints = trained_folder(run), _checkpoints(run)
    with cache.locked(folder, "the model", timeout):
        if not cache.is_usable(folder, "the model"):
            _train(run, folder, ledger, checkpoints, on_progress, company, on_row)
        checkpoints.drop()
    stored = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    restore(ledger, stored.pop("ledger"))
    curve = pd.read_parquet(folder / CURVE_FILE) if (folder / CURVE_FILE).is_file() else pd.DataFrame()
    return Training(StoredModel(run.id, folder / MODEL_FOLDER), curve, **stored)


def rehearse_run(run: PreparedRun) -> None:
    """Compute all teacher signals that the training of a run will read, unless its model is there.

    Whoever trains it later, and in whatever order with others, then reads the same bits.
    """
    if is_trained(run):
        return
    reads = [stage for stage in run.stages if array_names(stage.needs)]
    if not all(run.store(stage).is_full() for stage in reads):
        # Only the student's shape counts; a recipe puts heads on it.
        student = deepcopy(run.inputs.students.untrained)
        _Stages(run, student, Ledger(), _checkpoints(run)).rehearse()


def _checkpoints(run: PreparedRun) -> Checkpoints:
    settings = run.inputs.settings
    return Checkpoints(settings.cache / "checkpoints" / run.id, settings.checkpoint_seconds)


def _train(
    run: PreparedRun,
    folder: Path,
    ledger: Ledger,
    checkpoints: Checkpoints,
    on_progress: Progress,
    company: Company,
    on_row: OnRow,
) -> None:
    students, role = run.inputs.students, run.cell.role
    with phase(ledger, "setup"):
        student = students.build(run.cell.seed) if role != "reference" else students.static(ledger)
    identity = {"start": _sha256(student)}
    stages = _Stages(run, student, ledger, checkpoints, company)
    if role == "method":
        stages.train(on_progress, on_row)
        identity["batches"] = key_of(stages=stages.batches)
    ledger.peak_memory_bytes = max(ledger.peak_memory_bytes, peak_memory_bytes())
    facts = {
        "status": "diverged" if stages.diverged else "completed",
        "ledger": asdict(ledger),
        "response": stages.response.rows,
        "identity": identity,
    }

    def write(path: Path) -> None:
        export(student, run.inputs.students.reader.tokenizer(), path / MODEL_FOLDER, _card(run))
        if stages.curve:
            pd.DataFrame(stages.curve).to_parquet(path / CURVE_FILE, index=False)
        dump_json(facts, path / TRAINING_FILE)

    cache.put(folder, write)


class _Stages:
    """The training of one run: its stages one after the other, each with its share of the budget."""

    def __init__(
        self, run: PreparedRun, student: Encoder, ledger: Ledger, checkpoints: Checkpoints, company: Company = ALONE
    ) -> None:
        self.run, self.student, self.ledger, self.checkpoints, self.company = run, student, ledger, checkpoints, company
        self.response = _response(run)
        self.curve: list[dict[str, float]] = []
        self.batches: list[str] = []
        self.diverged = False

    def train(self, on_progress: Progress, on_row: OnRow) -> None:
        """Train by each stage in turn; from where a killed process left off, where one did."""
        resumed = self.checkpoints.load()
        if resumed is not None:
            self.curve, self.batches = resumed.facts["context"]["curve"], resumed.facts["context"]["batches"]
            for row in self.curve:
                on_row(row)
        begun, spent = len(self.batches), 0.0
        for number, stage in enumerate(self.run.stages):
            if number < begun:
                self._take_over(number)
            else:
                self.checkpoints.context = {"curve": self.curve, "batches": self.batches}
                report = partial(_report_share, on_progress, spent, stage.stage.share)
                tell = partial(_tell_row, on_row, number)
                trained = self._train_stage(number, spent, resumed if number == begun else None, report, tell)
                self.curve = self.curve + [_of_stage(number, row) for row in trained.curve]
                self.batches = [*self.batches, trained.batches_sha256]
                self.diverged = trained.diverged
            if self.diverged:
                return
            spent += stage.stage.share

    def rehearse(self) -> None:
        """Fill the teacher's stores with all that the stages will read."""
        spent = 0.0
        for number, stage in enumerate(self.run.stages):
            rehearse(self._job(number, spent), self.ledger)
            self._take_over(number)
            spent += stage.stage.share

    def _train_stage(
        self, number: int, spent: float, resumed: Snapshot | None, on_progress: Progress, on_row: OnRow
    ) -> Trained:
        with phase(self.ledger, "setup"):
            job = self._job(number, spent)
        trained = train(
            job,
            self.ledger,
            on_progress,
            on_row=on_row,
            response=self.response,
            checkpoints=self.checkpoints,
            resumed=resumed,
        )
        head = job.method.exported_head(trained.aux)
        if head is not None:
            put_on(self.student, head)
            self.ledger.extra_parameters -= num_parameters(head)
        return trained

    def _job(self, number: int, spent: float) -> TrainingJob:
        inputs, prepared = self.run.inputs, self.run.stages[number]
        method, own = prepared.stage.build(), dict[str, Any]()
        if prepared.stage.learning_rate is not None:
            own["learning_rate"] = prepared.stage.learning_rate
        if number < len(self.run.stages) - 1:
            own["checkpoint"] = "last"
        return TrainingJob(
            method=method,
            student=self.student,
            # Of what is stored, only the teacher's shape counts.
            teacher=inputs.teacher.encoder if prepared.needs.teacher_online else inputs.teacher.shape,
            text=self.run.text(prepared),
            store=self.run.store(prepared),
            spec=inputs.study.train.model_copy(update=own),
            budget=inputs.budget.share(spent, spent + prepared.stage.share),
            seed=stage_seed(self.run.cell.seed, number),
            company=self.company,
            shared_tokens=shared_tokens(inputs),
        )

    def _take_over(self, number: int) -> None:
        """Give the student the shape that a stage left it in; its weights come with the snapshot."""
        method = self.run.stages[number].stage.build()
        with seeded(0):
            head = method.exported_head(method.build_aux(dims_for(self.run.inputs, self.student)))
        if head is not None:
            put_on(self.student, head.to(self.student.device))


def _response(run: PreparedRun) -> Response:
    dev = run.inputs.dev
    if dev is None or run.inputs.study.dev is None or run.cell.role != "method":
        return Response()
    return Response(dev.dev_set, run.inputs.budget, run.inputs.study.dev.points)


def _report_share(on_progress: Progress, before: float, own: float, share: float) -> None:
    on_progress(before + own * share)


def _tell_row(on_row: OnRow, number: int, row: Mapping[str, float]) -> None:
    on_row(_of_stage(number, row))


def _of_stage(number: int, row: Mapping[str, float]) -> dict[str, float]:
    return {"stage": number + 1, **row}


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


def _card(run: PreparedRun) -> str:
    inputs, entry, own = run.inputs, run.cell.entry, run.inputs.students.own
    return model_card(
        {
            "Run": run.id,
            "Study": inputs.name,
            "Method": entry.name,
            "Hyperparameters": json.dumps(entry.hyperparameters, sort_keys=True),
            "Teacher": inputs.teacher.name,
            **({} if own is None else {"Student": own.name}),
            "Text": inputs.study.text.source,
            "Budget": f"{inputs.budget.amount:g} {inputs.budget.currency}" if run.cell.role == "method" else "none",
            "Seed": run.cell.seed,
        },
        licence_of(inputs.students.folder),
        "the teacher" if own is None else own.name,
    )
