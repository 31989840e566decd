"""Factors of an ablation, each with its levels: values of a hyperparameter, or of a setting of the study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distilbench.core.errors import one_of, shown
from distilbench.records.schema import LEARNING_RATE
from distilbench.study.row_changes import Changes, stage_of
from distilbench.study.rows import MethodEntry
from distilbench.study.sections.training import AblateSpec
from distilbench.study.study import Study

SETTINGS = ("student", "text", "train")
"""Sections of a study whose keys may be factors."""

Level = tuple[str, Changes]
"""Its name, and what it changes."""


def levels_of(study: Study, base: MethodEntry, spec: AblateSpec, factor: str) -> list[Level]:
    """The levels of a factor. Unless the design is factorial, the row's own comes first, and only once.

    Raises `ValueError` for a factor or level that the row and the study cannot have.
    """
    levels = list(listed_levels(factor, spec.factors[factor]))
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
    if is_setting(key):
        return setting(study, key)
    place, name = stage_of(base, key)
    stage = base.stages[place]
    if name == LEARNING_RATE and stage.learning_rate is None:
        return study.train.learning_rate
    return stage.share if name == "share" and len(base.stages) > 1 else stage.settings.get(name)


def _check_key(study: Study, base: MethodEntry, key: str) -> None:
    if is_setting(key):
        setting(study, key)
        return
    place, name = stage_of(base, key)
    known = [*base.stages[place].hyperparameters, LEARNING_RATE]
    if name not in known and not (name == "share" and len(base.stages) > 1):
        settings = [
            f"{section}.{field}" for section in SETTINGS for field in type(getattr(study, section)).model_fields
        ]
        raise ValueError(one_of(f"factor of {base.label}:", key, [*known, *settings]))


def listed_levels(factor: str, given: Any) -> Iterator[Level]:
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


def is_setting(key: str) -> bool:
    """Whether a factor is a setting of the study, not a hyperparameter."""
    return key.partition(".")[0] in SETTINGS and "." in key


def setting(study: Study, key: str) -> Any:
    """The study's own value of a setting such as `student.layers`. Raises `ValueError` where there is none."""
    section, _, name = key.partition(".")
    values = getattr(study, section).model_dump()
    if name not in values:
        raise ValueError(one_of(f"setting of {section}:", name, values))
    return values[name]
