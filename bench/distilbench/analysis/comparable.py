"""Which runs may share a row: those that agree in every setting that they both state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from distilbench.records.record import Record

# The teacher is not trained and the floor sees no text, so what they do not depend on cannot set them apart.
SECTIONS: dict[str, tuple[str, ...]] = {
    "method": ("budget", "teacher", "student", "text", "train"),
    "floor": ("teacher", "student"),
    "ceiling": ("teacher",),
    "reference": ("teacher",),
}
TASK_KEYS = ("data_sha256", "main_metric", "precision")
VERSIONS = ("torch", "transformers", "mteb")
# A method's own exported head changes the first two and is part of what is compared; the others are names of what is
# known by its hash.
LEFT_OUT = {("student", "parameters"), ("student", "output_width"), ("teacher", "name"), ("text", "source")}

Settings = dict[str, str]
Differences = dict[str, dict[str, str]]
"""Setting -> letter of a set of runs -> its value as JSON text."""


def settings_of(record: Record) -> Settings:
    """All that must be equal for two runs to be compared, as name -> JSON text."""
    stated: dict[str, Any] = {"limit": record.limit, f"run of {record.label}, seed {record.seed}": record.run_id}
    if record.role == "method":
        stated["tuning trials"] = record.ledger["tuning_trials"]
    for section in SECTIONS[record.role]:
        values: dict[str, Any] = getattr(record, section)
        stated |= {f"{section} {key}": value for key, value in values.items() if (section, key) not in LEFT_OUT}
    stated |= {f"version of {name}": record.environment[name] for name in VERSIONS}
    stated |= {f"{key} of {task}": facts[key] for task, facts in record.tasks.items() for key in TASK_KEYS}
    stated |= {f"{record.label}: {name}": value for name, value in record.hyperparameters.items()}
    return {name: json.dumps(value, sort_keys=True) for name, value in stated.items()}


def conflicts(one: Settings, other: Settings) -> list[str]:
    """Names of the settings that both state, with different values."""
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


def split(records: Sequence[Record]) -> tuple[dict[str, str], Differences]:
    """Put every run into the first set that it agrees with, methods first, else into a new set.

    Returns run_id -> letters of the sets that it is comparable with, empty when that is all of them; and in what the
    sets differ, empty when there is one.
    """
    sets: list[Settings] = []
    member: dict[str, int] = {}
    for record in sorted(records, key=lambda record: (record.role != "method", record.label, record.seed)):
        mine = settings_of(record)
        index = next((i for i, settings in enumerate(sets) if not conflicts(settings, mine)), len(sets))
        sets[index:] = sets[index:] or [{}]
        sets[index] |= mine
        member[record.run_id] = index
    return {record.run_id: _letters(record, sets, member[record.run_id]) for record in records}, _differences(sets)


def _letters(record: Record, sets: list[Settings], index: int) -> str:
    if record.role == "method":
        return _letter(index) if len(sets) > 1 else ""
    mine = settings_of(record)
    fitting = [i for i, settings in enumerate(sets) if not conflicts(settings, mine)]
    return "" if len(fitting) == len(sets) else ", ".join(map(_letter, fitting))


def _letter(index: int) -> str:
    return ascii_lowercase[index % 26] * (index // 26 + 1)


def _differences(sets: list[Settings]) -> Differences:
    names = sorted({name for one in sets for other in sets for name in conflicts(one, other)})
    return {name: {_letter(i): settings[name] for i, settings in enumerate(sets) if name in settings} for name in names}
