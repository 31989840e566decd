"""Is a known model's score here the one that was published? Before that, no score of a student means much.

A teacher is known by its name or by the hash of its weights (`distilbench.records.published`). Where its score is
another one, the likely cause is looked for: plain faults of the data, then the model is scored in other ways until
the published figure comes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench.core.cache import find_or_make
from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.models.model_folder import StoredModel
from distilbench.records.published import Figure, figures_of
from distilbench.records.record import dump_json
from distilbench.study.sections.training import Precision

if TYPE_CHECKING:
    from distilbench.core.machine import Settings
    from distilbench.evaluation.tasks.by_name import Task

TOLERANCE = 5e-4
TOLERANCE_IN_BF16 = TOLERANCE + 1e-3
DIAGNOSIS_FILE = "diagnosis.json"


@dataclass(frozen=True)
class TaskCalibration:
    """A published figure and what comes out here."""

    task: str
    published: float
    """As a fraction, as `here`."""
    here: float
    examples: int
    published_examples: int | None
    source: str
    tolerance: float = TOLERANCE

    @property
    def difference(self) -> float:
        return self.here - self.published

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.tolerance and self.published_examples in (None, self.examples)

    def row(self, *, as_text: bool) -> dict[str, Any]:
        """One line of a table, scores x100; rounded for reading."""
        scores = {"published": self.published, "here": self.here, "difference": self.difference}
        shown = {name: f"{100 * value:.3f}" if as_text else 100 * value for name, value in scores.items()}
        verdict = "agrees" if self.agrees else "differs"
        return {"task": self.task, **shown, "examples": self.examples, "verdict": verdict, "source": self.source}


@dataclass(frozen=True)
class Unpublished:
    """A score that there is no published figure for."""

    task: str
    here: float
    """As a fraction."""
    examples: int

    def row(self, *, as_text: bool) -> dict[str, Any]:
        """One line of the table of `TaskCalibration.row`."""
        here = f"{100 * self.here:.3f}" if as_text else 100 * self.here
        none = "" if as_text else None
        scores = {"published": none, "here": here, "difference": none}
        return {"task": self.task, **scores, "examples": self.examples, "verdict": "no figure", "source": none}


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found."""

    compared: list[TaskCalibration]
    unpublished: list[Unpublished]
    """Tasks that were asked for and have no figure."""
    left_out: dict[str, str]
    """Task -> why it was not compared."""
    wrong: str | None
    """What does not agree, with its likely cause."""


def figures(model: StoredModel, hashes: Mapping[str, str]) -> dict[str, Figure]:
    """Task -> what was published of a model; empty for an unknown one, and for one that is used in another way.

    Half precision is no other way: `compare` allows for it.
    """
    return {} if "used" in replace(model, dtype="fp32").hashes() else figures_of(model.name, hashes["weights"])


def compare(
    known: Mapping[str, Figure],
    scores: Mapping[str, Mapping[str, float]],
    examples: Mapping[str, int],
    precision: Precision = "fp32",
) -> list[TaskCalibration]:
    """The published figures beside some tasks' scores; tasks and metrics that were not published are passed over."""
    tolerance = TOLERANCE if precision == "fp32" else TOLERANCE_IN_BF16
    return [
        TaskCalibration(
            name,
            figure.score,
            scores[name][figure.task.metric],
            examples[name],
            figure.task.examples,
            figure.source,
            tolerance,
        )
        for name, figure in known.items()
        if figure.task.metric in scores.get(name, {})
    ]


def calibrate(model: StoredModel, tasks: list[Task], cache: Path, device: str) -> list[TaskCalibration]:
    """Score a model on those of the tasks that it has published figures for; what was scored before is not again."""
    from distilbench.evaluation.score import score

    known = figures(model, model.hashes())
    found = score(model, [task for task in tasks if task.name in known], cache, device)
    return compare(
        known, {item.task.name: item.metrics for item in found}, {item.task.name: len(item.examples) for item in found}
    )


def calibrate_by_name(teacher: str, tasks: list[str] | None, settings: Settings) -> CalibrationResult:
    """Calibrate a model on some tasks, or on all that it has figures for and that can be had here.

    A task that is asked for and has no figure is scored too; one whose data cannot be had is left out. Raises
    `UserError` for an unknown model, and for tasks that are asked for and are unknown or damaged.
    """
    from distilbench.evaluation.score import score
    from distilbench.evaluation.tasks.by_name import MissingDataError, load_task
    from distilbench.evaluation.tasks.profiles import expand
    from distilbench.models.finding import find_model

    model = find_model(teacher, settings.mirror)
    known = figures(model, model.hashes())
    asked = [name for name in expand(tasks) if isinstance(name, str)] if tasks is not None else list(known)
    left_out: dict[str, str] = {}
    loaded = []
    for name in asked:
        try:
            loaded.append(load_task(name, settings.mirror))
        except UserError as error:
            if tasks is not None and not isinstance(error, MissingDataError):
                raise
            left_out[name] = str(error)
    compared = calibrate(model, loaded, settings.cache, settings.device)
    others = score(model, [task for task in loaded if task.name not in known], settings.cache, settings.device)
    unpublished = [Unpublished(item.task.name, item.metrics["main_score"], len(item.examples)) for item in others]
    return CalibrationResult(
        compared, unpublished, left_out, explain(model, loaded, compared, settings.cache, settings.device)
    )


def explain(
    model: StoredModel, tasks: list[Task], compared: list[TaskCalibration], cache: Path, device: str
) -> str | None:
    """What does not agree, with its likely cause; None where everything does."""
    wrong = [item for item in compared if not item.agrees]
    if not wrong:
        return None
    # The smallest task tells soonest.
    first = min(wrong, key=lambda item: item.examples)
    (task,) = (task for task in tasks if task.name == first.task)
    cause = diagnose(model, task, first, cache, device)
    return f"{model.name} is not calibrated: {'; '.join(map(in_words, wrong))}; {cause}"


def in_words(item: TaskCalibration) -> str:
    """One comparison in a few words, scores x100."""
    return f"{item.task} is {item.here * 100:.2f}, published {item.published * 100:.2f}"


def diagnose(model: StoredModel, task: Task, item: TaskCalibration, cache: Path, device: str) -> str:
    """The likely cause of a disagreement, in words; found once for a model, a task's data and a figure."""
    from distilbench.evaluation.score import score_identity

    hashes = model.hashes()

    def write(path: Path) -> None:
        figure = figures(model, hashes)[item.task]
        dump_json(_look(model, task, figure, item, device), path / DIAGNOSIS_FILE)

    key = key_of(score=score_identity(hashes, task, device), figure=asdict(item))
    folder = find_or_make(cache / "calibration" / key, write, "the diagnosis")
    kept: dict[str, Any] = json.loads((folder / DIAGNOSIS_FILE).read_text(encoding="utf-8"))
    return str(kept["cause"])


def _look(model: StoredModel, task: Task, figure: Figure, item: TaskCalibration, device: str) -> dict[str, Any]:
    """What was tried, and the likely cause."""
    from distilbench.core.seeds import preserved_rng
    from distilbench.evaluation.collapse import CollapseError
    from distilbench.evaluation.evaluate import evaluate
    from distilbench.evaluation.tasks.content import fault, is_other
    from distilbench.evaluation.variants import variants

    if wrong := fault(task, figure.task):
        return {"cause": wrong, "tried": {}}
    tried: dict[str, float] = {}
    with preserved_rng():
        for variant, encoder in variants(model, device):
            try:
                tried[variant.name] = evaluate(encoder, task).metrics[figure.task.metric]
            except (CollapseError, RuntimeError):
                # Some devices cannot compute in half precision; a variant that collapses is not the cause.
                continue
            if abs(tried[variant.name] - item.published) <= item.tolerance:
                return {"cause": f"with {variant.name} the published figure comes out: {variant.cause}", "tried": tried}
    if is_other(task, figure.task):
        return {
            "cause": f"the data are others: the texts and scores of {task.name} are not the published ones",
            "tried": tried,
        }
    near = min(tried, key=lambda name: abs(tried[name] - item.published)) if tried else None
    nearest = f" (nearest: {near}, {tried[near] * 100:.2f})" if near else ""
    return {
        "cause": f"no other pooling, normalisation, length, prompt or dtype gives it{nearest}, and no fault of the "
        "data is seen; compare versions of model, data and mteb",
        "tried": tried,
    }
