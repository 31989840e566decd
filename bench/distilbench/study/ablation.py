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

from distilbench.core.errors import one_of, shown
from distilbench.records.design import Ablation, AblationRow
from distilbench.study.rows import MethodEntry, Stage, hyperparameters, method_entry
from distilbench.study.sections import AblateSpec
from distilbench.study.study import Study

SETTINGS = ("student", "text", "train")
MOST_CELLS, LONGEST_LABEL = 256, 80

Changes = Mapping[str, Any]
"""Hyperparameter, or setting of the study -> value."""


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
    found: dict[str, tuple[dict[str, Any], list[MethodEntry]]] = {"{}": ({}, list(study.methods))}
    for cell in (cell for cells in _named_cells(study).values() for cell in cells):
        if rows.setdefault(cell.content, cell.label) != cell.label:
            continue
        _, entries = found.setdefault(json.dumps(cell.settings, sort_keys=True), (cell.settings, []))
        if cell.label not in [entry.label for entry in entries]:
            entries.append(dataclasses.replace(cell.entry, label=cell.label))
    _check_labels(rows)
    return [_with_settings(study, settings, entries) for settings, entries in found.values() if entries]


def designs(study: Study) -> list[Ablation]:
    """What the report has to know of a study's ablations: which rows are compared, under which names."""
    rows = {json.dumps([_content(entry), {}], sort_keys=True): entry.label for entry in study.methods}
    found = []
    for name, cells in _named_cells(study).items():
        spec = study.ablate[name]
        listed = [AblationRow(rows.setdefault(cell.content, cell.label), cell.levels) for cell in cells]
        levels = {
            factor: list(dict.fromkeys(cell.levels[factor] for cell in cells if factor in cell.levels))
            for factor in spec.factors
        }
        apart = {
            factor: sorted({key for _, changes in _levels(factor, given) for key in changes if _is_setting(key)})
            for factor, given in spec.factors.items()
        }
        found.append(Ablation(name, spec.design, levels, listed, apart))
    return found


def changed(entry: MethodEntry, changes: Changes, label: str) -> MethodEntry:
    """A row with other hyperparameters: `name`, or `stage.name` of a recipe, where a share of 0 leaves the stage out.

    Raises `ValueError` for hyperparameters that the row does not have, and for values that its methods refuse.
    """
    stages = list(entry.stages)
    of_stage: dict[int, dict[str, Any]] = {}
    for key, value in changes.items():
        place, name = _stage_of(entry, key)
        of_stage.setdefault(place, {})[name] = value
    for place, values in of_stage.items():
        share = values.pop("share", stages[place].share)
        if len(stages) < 2 and share != 1.0:
            raise ValueError(f"{entry.label}: share is for the stages of a recipe")
        given = hyperparameters(stages[place].name, {**stages[place].hyperparameters, **values})
        stages[place] = Stage(name=stages[place].name, hyperparameters=given, share=share)
    return dataclasses.replace(entry, label=label, stages=_shared_out(entry.label, stages, of_stage))


def _shared_out(label: str, stages: list[Stage], touched: Mapping[int, Any]) -> tuple[Stage, ...]:
    """The stages whose share is not 0; what the changed shares leave goes to the others in proportion."""
    for stage in stages:
        if isinstance(stage.share, bool) or not isinstance(stage.share, int | float) or not 0 <= stage.share <= 1:
            raise ValueError(f"{label}: the share of {stage.name} must be from 0 to 1, got {shown(stage.share)}")
    fixed = sum(stage.share for place, stage in enumerate(stages) if place in touched)
    free = sum(stage.share for place, stage in enumerate(stages) if place not in touched)
    if abs(fixed + free - 1) > 1e-9 and (free == 0 or fixed >= 1):
        raise ValueError(f"{label}: the shares of its stages must add up to 1")
    scale = (1 - fixed) / free if free else 1.0
    kept = [
        stage if place in touched else dataclasses.replace(stage, share=stage.share * scale)
        for place, stage in enumerate(stages)
        if stage.share > 0
    ]
    return tuple(kept) if len(kept) > 1 else (dataclasses.replace(kept[0], share=1.0),)


def _stage_of(entry: MethodEntry, key: str) -> tuple[int, str]:
    """Where among a row's stages a hyperparameter belongs, and its name there."""
    if len(entry.stages) == 1:
        return 0, key
    stage, dot, name = key.partition(".")
    names = [item.name for item in entry.stages]
    if not dot or names.count(stage) != 1:
        known = [f"{item}." for item in names if names.count(item) == 1]
        raise ValueError(
            f"{shown(key)} is no hyperparameter of the recipe {entry.label}; begin with {' or '.join(known)}"
        )
    return names.index(stage), name


def _named_cells(study: Study) -> dict[str, list[AblationCell]]:
    return {name: list(_cells(study, name, spec)) for name, spec in study.ablate.items()}


def _cells(study: Study, name: str, spec: AblateSpec) -> Iterator[AblationCell]:
    """The cells of one ablation, the one that the others are compared with first."""
    try:
        base = method_entry(name if spec.of is None else spec.of)
        levels = {factor: _with_reference(study, base, spec, factor) for factor in spec.factors}
        if spec.design == "factorial":
            yield from _crossed(study, base, levels)
            return
        yield _cell(study, base, {factor: found[0] for factor, found in levels.items()}, {})
        for factor, found in levels.items():
            if len(found) < 2:
                raise ValueError(f"{factor} has no level besides that of {base.label}; give another one")
            for level, changes in found[1:]:
                yield _cell(study, base, {factor: (level, changes)}, {factor: (level, changes)})
    except ValueError as error:
        raise ValueError(f"ablate.{name}: {error}") from None


Level = tuple[str, Changes]


def _crossed(study: Study, base: MethodEntry, levels: dict[str, list[Level]]) -> Iterator[AblationCell]:
    for factor, found in levels.items():
        if len(found) < 2:
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
    own = {key: value for key, value in changes.items() if not _is_setting(key)}
    settings = {key: value for key, value in changes.items() if _is_setting(key) and value != _setting(study, key)}
    label = "".join([base.label, *(_label_part(factor, level) for factor, (level, _) in away.items())])
    entry = changed(base, own, label) if own else dataclasses.replace(base, label=label)
    return AblationCell(label, entry, settings, {factor: level for factor, (level, _) in levels.items()})


def _label_part(factor: str, level: str) -> str:
    return f"+{re.sub(r'[^A-Za-z0-9_.+-]+', '_', f'{factor}-{level}')}"


def _with_reference(study: Study, base: MethodEntry, spec: AblateSpec, factor: str) -> list[Level]:
    """A factor's levels; but in a factorial design the row's own one comes first, and only once."""
    levels = list(_levels(factor, spec.factors[factor]))
    for _, changes in levels:
        for key in changes:
            _check_key(study, base, key)
    if spec.design == "factorial":
        return levels
    same = [level for level in levels if _is_own(study, base, level[1])]
    listed = isinstance(spec.factors[factor], dict)
    name = same[0][0] if same else "as it is" if listed else _level_name(_own_value(study, base, factor))
    return [(name, {}), *(level for level in levels if level not in same)]


def _is_own(study: Study, base: MethodEntry, changes: Changes) -> bool:
    return all(_own_value(study, base, key) == value for key, value in changes.items())


def _own_value(study: Study, base: MethodEntry, key: str) -> Any:
    if _is_setting(key):
        return _setting(study, key)
    place, name = _stage_of(base, key)
    stage = base.stages[place]
    return stage.share if name == "share" and len(base.stages) > 1 else stage.hyperparameters.get(name)


def _check_key(study: Study, base: MethodEntry, key: str) -> None:
    if _is_setting(key):
        _setting(study, key)
        return
    place, name = _stage_of(base, key)
    known = list(base.stages[place].hyperparameters)
    if name not in known and not (name == "share" and len(base.stages) > 1):
        settings = [
            f"{section}.{field}" for section in SETTINGS for field in type(getattr(study, section)).model_fields
        ]
        raise ValueError(one_of(f"factor of {base.label}:", key, [*known, *settings]))


def _levels(factor: str, given: Any) -> Iterator[Level]:
    """Name and changes of each level that a factor is given."""
    if isinstance(given, dict):
        for name, changes in given.items():
            if not isinstance(changes, dict):
                raise ValueError(f"{factor}: the level {shown(name)} must be a mapping of hyperparameters to values")
            yield str(name), {str(key): value for key, value in changes.items()}
        return
    for value in given if isinstance(given, list) else [given]:
        yield _level_name(value), {factor: value}


def _level_name(value: Any) -> str:
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_setting(key: str) -> bool:
    return key.partition(".")[0] in SETTINGS and "." in key


def _setting(study: Study, key: str) -> Any:
    section, _, name = key.partition(".")
    values = getattr(study, section).model_dump()
    if name not in values:
        raise ValueError(one_of(f"setting of {section}:", name, values))
    return values[name]


def _with_settings(study: Study, settings: Mapping[str, Any], entries: list[MethodEntry]) -> Study:
    values = study.model_dump(exclude={"ablate", "methods"}, exclude_unset=True)
    for key, value in settings.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return Study.model_validate({**values, "methods": entries})


def _content(entry: MethodEntry) -> list[Any]:
    return [[stage.name, stage.hyperparameters, stage.share] for stage in entry.stages]


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
