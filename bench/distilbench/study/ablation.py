"""Ablations: the cells that a study's section `ablate` asks for, as rows of plain studies.

A cell is the row that is taken apart with one or more changes: to its hyperparameters, which make another row of the
same study, or to settings of the study (student, text, train), which make a part of the study of its own. All cells
share the seeds, and the teacher's signals of an equal text.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from distilbench.records.design import Ablation, AblationRow
from distilbench.study.factors import Level, is_setting, levels_of, listed_levels, setting
from distilbench.study.row_changes import changed
from distilbench.study.rows import MethodEntry, method_entry
from distilbench.study.sections.training import AblateSpec
from distilbench.study.study import Study

MOST_CELLS, LONGEST_LABEL = 256, 80


@dataclass(frozen=True)
class AblationCell:
    """One row of an ablation, with what has to be changed in the study for it."""

    label: str
    entry: MethodEntry
    settings: dict[str, Any]
    """Such as student.layers -> 3; only what differs from the study's own."""
    levels: dict[str, str]

    @property
    def content(self) -> str:
        """Equal for cells that train alike."""
        return json.dumps([_content(self.entry), self.settings], sort_keys=True)


def parts(study: Study) -> list[Study]:
    """The plain studies that a study consists of, one for each combination of settings that its cells ask for.

    Cells that train alike are one row. Raises `ValueError` for factors or levels that cannot be.
    """
    if not study.ablate:
        return [study]
    rows = {json.dumps([_content(entry), {}], sort_keys=True): entry.label for entry in study.methods}
    of_settings: dict[str, tuple[dict[str, Any], list[MethodEntry]]] = {"{}": ({}, list(study.methods))}
    for cell in (cell for cells in _named_cells(study).values() for cell in cells):
        if rows.setdefault(cell.content, cell.label) != cell.label:
            continue
        _, entries = of_settings.setdefault(json.dumps(cell.settings, sort_keys=True), (cell.settings, []))
        if cell.label not in [entry.label for entry in entries]:
            entries.append(dataclasses.replace(cell.entry, label=cell.label))
    _check_labels(rows)
    return [_with_settings(study, settings, entries) for settings, entries in of_settings.values() if entries]


def designs(study: Study) -> list[Ablation]:
    """What the report has to know of a study's ablations: which rows are compared, under which names."""
    rows = {json.dumps([_content(entry), {}], sort_keys=True): entry.label for entry in study.methods}
    ablations = []
    for name, cells in _named_cells(study).items():
        spec = study.ablate[name]
        listed = [AblationRow(rows.setdefault(cell.content, cell.label), cell.levels) for cell in cells]
        levels = {
            factor: list(dict.fromkeys(cell.levels[factor] for cell in cells if factor in cell.levels))
            for factor in spec.factors
        }
        apart = {
            factor: sorted({key for _, changes in listed_levels(factor, given) for key in changes if is_setting(key)})
            for factor, given in spec.factors.items()
        }
        ablations.append(Ablation(name, spec.design, levels, listed, apart))
    return ablations


def _named_cells(study: Study) -> dict[str, list[AblationCell]]:
    return {name: list(_cells(study, name, spec)) for name, spec in study.ablate.items()}


def _cells(study: Study, name: str, spec: AblateSpec) -> Iterator[AblationCell]:
    """The cells of one ablation, the one that the others are compared with first."""
    try:
        base = method_entry(name if spec.of is None else spec.of)
        levels = {factor: levels_of(study, base, spec, factor) for factor in spec.factors}
        if spec.design == "factorial":
            yield from _crossed(study, base, levels)
            return
        yield _cell(study, base, {factor: listed[0] for factor, listed in levels.items()}, {})
        for factor, (_, *others) in levels.items():
            if not others:
                raise ValueError(f"{factor} has no level besides that of {base.label}; give another one")
            for level in others:
                yield _cell(study, base, {factor: level}, {factor: level})
    except ValueError as error:
        raise ValueError(f"ablate.{name}: {error}") from None


def _crossed(study: Study, base: MethodEntry, levels: dict[str, list[Level]]) -> Iterator[AblationCell]:
    for factor, listed in levels.items():
        if len(listed) < 2:
            raise ValueError(f"{factor} has one level, a factorial design needs two or more of each")
    if (count := prod(map(len, levels.values()))) > MOST_CELLS:
        raise ValueError(f"the factorial design has {count} cells, more than {MOST_CELLS}; leave some levels out")
    for chosen in product(*levels.values()):
        of_factor = dict(zip(levels, chosen, strict=True))
        away = {factor: level for factor, level in of_factor.items() if level != levels[factor][0]}
        yield _cell(study, base, of_factor, away)


def _cell(study: Study, base: MethodEntry, levels: Mapping[str, Level], away: Mapping[str, Level]) -> AblationCell:
    """The base with the changes of all levels; the label names those that are `away` from the reference."""
    changes = {key: value for _, given in levels.values() for key, value in given.items()}
    own = {key: value for key, value in changes.items() if not is_setting(key)}
    settings = {key: value for key, value in changes.items() if is_setting(key) and value != setting(study, key)}
    label = "".join([base.label, *(_label_part(factor, level) for factor, (level, _) in away.items())])
    entry = changed(base, own, label) if own else dataclasses.replace(base, label=label)
    return AblationCell(label, entry, settings, {factor: level for factor, (level, _) in levels.items()})


def _label_part(factor: str, level: str) -> str:
    return f"+{re.sub(r'[^A-Za-z0-9_.+-]+', '_', f'{factor}-{level}')}"


def _with_settings(study: Study, settings: Mapping[str, Any], entries: list[MethodEntry]) -> Study:
    values = study.model_dump(exclude={"ablate", "methods"}, exclude_unset=True)
    for key, value in settings.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return Study.model_validate({**values, "methods": entries})


def _content(entry: MethodEntry) -> list[Any]:
    return [[stage.name, stage.settings, stage.share] for stage in entry.stages]


def _check_labels(rows: Mapping[str, str]) -> None:
    labels = list(rows.values())
    for label in labels:
        if len(label) > LONGEST_LABEL:
            raise ValueError(
                f"ablate: the cell {label} has a name of more than {LONGEST_LABEL} characters; name its levels"
            )
        if labels.count(label) > 1:
            raise ValueError(
                f"ablate: two cells of different settings would both be called {label}; name one otherwise"
            )
