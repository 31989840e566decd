"""Rows with other hyperparameters: what ablations and tuning make of a row of the study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from distilbench.core.errors import shown
from distilbench.records.schema import LEARNING_RATE
from distilbench.study.rows import MethodEntry, Stage, hyperparameters, learning_rate

Changes = Mapping[str, Any]
"""Hyperparameter, or setting of the study -> value."""


def changed(entry: MethodEntry, changes: Changes, label: str) -> MethodEntry:
    """A row with other hyperparameters: `name`, or `stage.name` of a recipe, where a share of 0 leaves the stage out.

    Raises `ValueError` for hyperparameters that the row does not have, and for values that its methods refuse.
    """
    stages = list(entry.stages)
    of_stage: dict[int, dict[str, Any]] = {}
    for key, value in changes.items():
        place, name = stage_of(entry, key)
        of_stage.setdefault(place, {})[name] = value
    for place, values in of_stage.items():
        share = values.pop("share", stages[place].share)
        if len(stages) < 2 and share != 1.0:
            raise ValueError(f"{entry.label}: share is for the stages of a recipe")
        rate = learning_rate(entry.label, values.pop(LEARNING_RATE, stages[place].learning_rate))
        given = hyperparameters(stages[place].name, {**stages[place].hyperparameters, **values})
        stages[place] = Stage(name=stages[place].name, hyperparameters=given, share=share, learning_rate=rate)
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


def stage_of(entry: MethodEntry, key: str) -> tuple[int, str]:
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
