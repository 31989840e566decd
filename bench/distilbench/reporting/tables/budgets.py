"""The same methods under budgets of other currencies: what is held equal decides which one looks best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from distilbench.analysis.comparable import Settings, conflicts, settings_of
from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.records.record import RECORD_FILE
from distilbench.records.schema import Currency
from distilbench.reporting.formats.render import Table
from distilbench.reporting.tables.scores import TableBuilder

CURRENCIES: tuple[str, ...] = get_args(Currency)


def siblings(folder: Path) -> list[Path]:
    """Folders beside one study's that hold it under other budgets: `<name>` and `<name>-<currency>`."""
    ending = next((f"-{name}" for name in CURRENCIES if folder.name.endswith(f"-{name}")), "")
    base = folder.name.removesuffix(ending)
    paths = [folder.with_name(name) for name in (base, *(f"{base}-{currency}" for currency in CURRENCIES))]
    return [path for path in paths if path != folder and any(path.glob(f"[!.]*/{RECORD_FILE}"))]


def budget_table(study: StudyFrames, others: Sequence[StudyFrames]) -> Table | None:
    """Means over tasks under each study's budget; None without another study that differs from `study` in it alone."""
    if study.differences or not _is_trained(study):
        return None
    columns, refused = {_budget(study): study}, []
    for other in filter(_is_trained, others):
        different = conflicts(_settings(study), _settings(other))
        if different or other.differences:
            refused.append(f"{other.name} is left out: it differs in more ({', '.join(different) or 'within itself'}).")
        else:
            columns[_budget(other)] = other
    if len(columns) < 2:
        return None
    builder = TableBuilder(study)
    for heading, other in columns.items():
        builder.add_estimate(heading, other.average, OVERALL, 2)
    notes = [
        "Means over tasks (x100) of studies that differ in their budgets alone. Equal sentences, equal FLOPs and equal "
        "seconds are different questions: a method that spends more on each sentence sees fewer under the last two.",
        *refused,
    ]
    return builder.table("budgets", "the same methods under other budgets", notes)


def _is_trained(study: StudyFrames) -> bool:
    """Whether anything was trained in a study, and so has a budget."""
    return any(record.role == "method" for record in study.records.values())


def _budget(study: StudyFrames) -> str:
    budget = next(record.budget for record in study.records.values() if record.role == "method")
    return f"{budget['amount']:,g} {budget['currency']}"


def _settings(study: StudyFrames) -> Settings:
    """What all runs of a study share, but for the budget and what is a run's own."""
    stated: Settings = {}
    for record in study.records.values():
        stated |= settings_of(record)
    return {name: value for name, value in stated.items() if not name.startswith(("budget ", "run of "))}
