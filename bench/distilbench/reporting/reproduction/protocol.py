"""In what a study's protocol differs from that of a published table, from what both state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distilbench.analysis.frame import StudyFrames
from distilbench.records.published import PublishedTable
from distilbench.records.record import Record

TEACHER = {"name": "{}", "layers": "{} layers", "width": "width {}", "parameters": "{:,} parameters"}
STUDENT = {name: form for name, form in TEACHER.items() if name != "name"}
TEXT = {"sentences": "{:,} sentences", "source": "from {}"}
BUDGET = {"amount": "{:,g}", "currency": "{}"}
TRAIN = {
    "learning_rate": "learning rate {:g} for all methods",
    "batch_size": "batch size {} for all methods",
    "checkpoint": "checkpoint: {}",
}
"""Key of a record -> how its value is worded."""


def differences(table: PublishedTable, study: StudyFrames, keys: Iterable[str]) -> list[str]:
    """One note for each aspect in which the study's rows `keys` and the table differ, or the source is silent."""
    keys = set(keys)
    records = [study.records[str(run_id)] for run_id, key in study.runs["key"].items() if key in keys]
    there = table.protocol
    aspects = [
        ("Teacher", there.teacher, _distinct(_worded(record.teacher, TEACHER) for record in records)),
        ("Student", there.student, _distinct(_worded(record.student, STUDENT) for record in records)),
        ("Text", there.text, _distinct(_worded(record.text, TEXT) for record in records)),
        ("Supervised stage", there.supervised_stage, _labelled(records)),
        ("Budget", there.budget, _distinct(_worded(record.budget, BUDGET, " ") for record in records)),
        ("Tuning", there.selection, _distinct(_worded(record.train, TRAIN) for record in records)),
        ("Seeds", there.seeds, _seeds(study, keys)),
        ("Evaluation", there.evaluation, _distinct(f"mteb {record.environment['mteb']}" for record in records)),
    ]
    notes = [f"{name}. There: {says or 'not stated'}. Here: {here}." for name, says, here in aspects if says != here]
    return notes + _sets(table, study) + _absent(table, study)


def other_sets(table: PublishedTable, study: StudyFrames) -> dict[str, tuple[int, list[int]]]:
    """Task -> examples there and here, of the tasks that have one name and another number of examples."""
    here: dict[str, set[int]] = {}
    for record in study.records.values():
        # A shortened task has fewer examples, but the smoke mark says so already.
        for name, info in record.tasks.items() if record.limit is None else ():
            here.setdefault(name, set()).add(info["examples"])
    stated = {task.name: task.examples for task in table.tasks if task.examples is not None}
    return {task: (size, sorted(here[task])) for task, size in stated.items() if here.get(task, set()) - {size}}


def _sets(table: PublishedTable, study: StudyFrames) -> list[str]:
    return [
        f"{task} is another test set. There: {there:,} examples. Here: {' / '.join(f'{size:,}' for size in here)}."
        for task, (there, here) in other_sets(table, study).items()
    ]


def _absent(table: PublishedTable, study: StudyFrames) -> list[str]:
    absent = [task.name for task in table.tasks if task.name not in study.tasks.index]
    return [f"Not scored here: {', '.join(absent)}."] if absent else []


def _worded(facts: Mapping[str, Any], forms: Mapping[str, str], between: str = ", ") -> str:
    return between.join(form.format(facts[key]) for key, form in forms.items() if key in facts)


def _labelled(records: Sequence[Record]) -> str:
    using = sorted({record.label for record in records if "labelled" in record.identity})
    return f"{', '.join(using)} learn{'s' if len(using) == 1 else ''} from labelled rows" if using else "none"


def _seeds(study: StudyFrames, keys: set[str]) -> str:
    completed = study.runs[(study.runs["status"] == "completed") & study.runs["key"].isin(keys)]
    return _distinct(sorted(completed.groupby("key").size())) or "none completed"


def _distinct(values: Iterable[object]) -> str:
    return " / ".join(dict.fromkeys(map(str, values)))
