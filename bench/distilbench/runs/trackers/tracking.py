"""The one callback that tells all trackers of a run what happens, and keeps the run safe from them."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

from distilbench.core.errors import UserError, one_of
from distilbench.core.machine import Settings
from distilbench.records.record import Record
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.runs.trackers.tracker import TrackedRun, Tracker

TRACKERS = {
    "tensorboard": ("ToTensorboard", "torch.utils.tensorboard", "tensorboard"),
    "wandb": ("ToWandb", "wandb", "wandb"),
    "mlflow": ("ToMlflow", "mlflow.tracking", "mlflow"),
    "trackio": ("ToTrackio", "trackio", "trackio"),
}
"""Name -> the class in `to_<name>.py`, the module that it imports, and the package that pip installs for that."""
TRAIN, LEDGER, SCORE = "train", "ledger", "score"
"""What the names of numbers begin with: of the curve, of the ledger, and of tasks (x100)."""

_log = logging.getLogger(__name__)


def check_trackers(settings: Settings) -> None:
    """Raises `UserError` for a name that is none, and for a library that is not installed or cannot be imported."""
    for name in settings.trackers:
        if name not in TRACKERS:
            raise UserError(f"--log: {one_of('tracker', name, TRACKERS)}")
        _, module, package = TRACKERS[name]
        try:
            with redirect_stdout(io.StringIO()):
                import_module(module)
        except ImportError as error:
            raise UserError(
                f"--log {name} needs {package}, which cannot be imported ({error}); pip install {package}, or leave "
                f"{name} out of --log"
            ) from error


def ready_trackers(settings: Settings, study: str) -> None:
    """Make what the runs of a study share. What goes wrong, as a server that does not answer, is logged."""
    if "mlflow" in settings.trackers:
        from distilbench.runs.trackers.to_mlflow import open_experiment

        _guarded("mlflow", "nothing is tracked until it can", lambda: open_experiment(study, settings.log_folder))


class Tracking:
    """The trackers of one run. They are opened when there is something to tell."""

    def __init__(self, run: PreparedRun) -> None:
        self._run = run
        self._trackers: dict[str, Tracker] | None = None
        self._seen = 0

    def row(self, row: Mapping[str, float]) -> None:
        """Take a row of the curve. One that goes on from a checkpoint tells the rows before that again."""
        self._seen = int(row["step"])
        self._tell(self._seen, {f"{TRAIN}/{name}": value for name, value in row.items() if name != "step"})

    def rows_unless_seen(self, curve: Iterable[Mapping[Any, float]]) -> None:
        """Take a whole curve, of a training that was there already."""
        if not self._seen:
            for row in curve:
                # Columns that a stage of a recipe does not have are NaN.
                self.row({name: value for name, value in row.items() if not math.isnan(value)})

    def finish(self, record: Record) -> None:
        """Take ledger and scores, and close."""
        seconds = {f"seconds/{phase}": value for phase, value in record.ledger["seconds"].items()}
        ledger = {name: value for name, value in record.ledger.items() if isinstance(value, int | float)} | seconds
        scores = {f"{SCORE}/{task}": 100 * values["main_score"] for task, values in record.scores.items()}
        self._tell(self._seen, {f"{LEDGER}/{name}": value for name, value in ledger.items()} | scores)
        self._each(lambda tracker: tracker.finish())

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(step, values))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        if self._trackers is None:
            self._trackers = {}
            for name in self._run.inputs.settings.trackers:
                self._guard(name, lambda name=name: self._open(name))  # type: ignore[misc]
        for name, tracker in list(self._trackers.items()):
            self._guard(name, lambda tracker=tracker: act(tracker))  # type: ignore[misc]

    def _open(self, name: str) -> None:
        assert self._trackers is not None
        make = getattr(import_module(f"{__package__}.to_{name}"), TRACKERS[name][0])
        self._trackers[name] = make(_described(self._run))

    def _guard(self, name: str, act: Callable[[], object]) -> None:
        if not _guarded(name, f"{self._run.name} goes on without it", act):
            assert self._trackers is not None
            self._trackers.pop(name, None)


def _guarded(name: str, consequence: str, act: Callable[[], object]) -> bool:
    """Whether a tracker did something without an error. What it prints goes nowhere: stdout is for results."""
    try:
        with redirect_stdout(io.StringIO()):
            act()
    # Some libraries end the program where they cannot go on.
    except (Exception, SystemExit) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        _log.warning("%s cannot be written to (%s); %s", name, why, consequence)
        return False
    return True


def _described(run: PreparedRun) -> TrackedRun:
    inputs, entry = run.inputs, run.cell.entry
    train = inputs.study.train.model_dump()
    settings: dict[str, Any] = {
        "run_id": run.id,
        "study": inputs.name,
        "role": run.cell.role,
        "label": entry.label,
        "method": entry.name,
        "seed": run.cell.seed,
        "teacher": inputs.teacher.name,
        "text": _text(inputs.study.text.source),
        "budget": f"{inputs.budget.amount:g} {inputs.budget.currency}",
        **{f"train.{name}": _text(value) for name, value in train.items() if value is not None},
        **{f"method.{name}": _text(value) for name, value in entry.hyperparameters.items()},
    }
    folder = inputs.settings.log_folder
    return TrackedRun(run.id, inputs.name, entry.label, run.cell.seed, settings, folder)


def _text(value: Any) -> str | int | float:
    """Numbers and texts as they are, anything else as JSON."""
    return value if isinstance(value, str | int | float) else json.dumps(value, default=str)
