"""Rows of the comparison, as a study's `methods` lists them: a method with its settings, or a recipe of several."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, TypeAdapter, ValidationError

import distilbench_methods
from distilbench.core.errors import one_of, shown
from distilbench.records.schema import LEARNING_RATE
from distilbench.study.mistakes import message
from distilbench.study.sections.section import Label, check_numbers
from distilbench.study.sections.training import LearningRate

if TYPE_CHECKING:
    from distilbench_methods.base import Method

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A method with its hyperparameters, all defaults filled in, and its share of the budget."""

    name: str
    hyperparameters: dict[str, Any]
    share: float = 1.0
    learning_rate: float | None = None
    """Unset: the study's."""

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters, and the learning rate where it is not the study's."""
        own = {} if self.learning_rate is None else {LEARNING_RATE: self.learning_rate}
        return {**self.hyperparameters, **own}

    def build(self) -> Method:
        return distilbench_methods.load(self.name)(**self.hyperparameters)


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One row of the comparison: a method, or a recipe of methods that train the same student one after the other."""

    label: str
    stages: tuple[Stage, ...]
    tuning_trials: int = 0
    """Trainings that were spent on the choice of its hyperparameters."""

    @property
    def name(self) -> str:
        """The method's name, or those of a recipe's stages."""
        return "+".join(stage.name for stage in self.stages) or self.label

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The method's hyperparameters and its own learning rate, if it has one; or under `stages` those of each of a
        recipe's stages with its share."""
        if len(self.stages) < 2:
            return {name: value for stage in self.stages for name, value in stage.settings.items()}
        return {"stages": [{"method": stage.name, "share": stage.share, **stage.settings} for stage in self.stages]}


def method_entry(item: Any) -> MethodEntry:
    """A row as `methods` lists it: a name, or `label: {hyperparameter: value}`, or `label: [stage, stage]`.

    Raises `ValueError` for what is none.
    """
    label, given = (item, {}) if isinstance(item, str) else _single_pair(item)
    if not isinstance(label, str):
        raise ValueError(f"{shown(item)}: labels and names of methods are text")
    _checked(Label, label, "label")
    if isinstance(given, list):
        return MethodEntry(label=label, stages=_recipe(label, given))
    if "share" in (given or {}):
        raise ValueError(f"{label}: share is for the stages of a recipe, `{label}: [method: {{share: 0.5}}, ...]`")
    return MethodEntry(label=label, stages=(_stage(label, given)[0],))


def _single_pair(item: Any) -> tuple[Any, Any]:
    if not (isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item.values())), dict | list | None)):
        raise ValueError(f"{shown(item)} is neither a method name nor `label: {{hyperparameter: value}}`")
    pair: tuple[Any, Any] = next(iter(item.items()))
    return pair


def _recipe(label: str, items: list[Any]) -> tuple[Stage, ...]:
    """The stages of a recipe; those without a share divide what the others leave."""
    if len(items) < 2:
        raise ValueError(f"{label}: a recipe has two or more stages")
    parsed = []
    for item in items:
        name, given = (item, {}) if isinstance(item, str) else _single_pair(item)
        if not isinstance(name, str) or isinstance(given, list):
            raise ValueError(f"{label}: {shown(item)} is no stage; give a method name or `method: {{share: 0.2}}`")
        parsed.append(_stage(name, given))
    shares = [share for _, share in parsed]
    open_count, rest = shares.count(None), 1.0 - sum(share for share in shares if share is not None)
    if (rest < 1e-9) != (open_count == 0) or rest < -1e-9:
        raise ValueError(f"{label}: the shares of its stages must add up to 1; a stage without one takes what is left")
    return tuple(
        dataclasses.replace(stage, share=rest / open_count if share is None else share) for stage, share in parsed
    )


def _stage(label: str, given: dict[str, Any] | None) -> tuple[Stage, float | None]:
    """A method with its hyperparameters, and the share that is asked for."""
    given = dict(given or {})
    name = given.pop("method", label)
    if not isinstance(name, str):
        raise ValueError(f"{shown(label)}: labels and names of methods are text, got {shown(name)}")
    share = _checked(Share, given.pop("share"), f"share of {shown(label)}") if "share" in given else None
    name, preset = distilbench_methods.VARIANTS.get(name, (name, {}))
    if name not in distilbench_methods.registry():
        raise ValueError(one_of("method", name, [*distilbench_methods.registry(), *distilbench_methods.VARIANTS]))
    rate = learning_rate(label, given.pop(LEARNING_RATE, None))
    given = hyperparameters(name, {**preset, **given})
    return Stage(name=name, hyperparameters=given, learning_rate=rate), share


def learning_rate(label: str, given: Any) -> float | None:
    """A row's own learning rate; None for that of the study. Raises `ValueError` for what is none."""
    if isinstance(given, bool):
        raise ValueError(f"{LEARNING_RATE} of {shown(label)}: yes or no is no number")
    rate: float | None = None if given is None else _checked(LearningRate, given, f"{LEARNING_RATE} of {shown(label)}")
    return rate


def _checked(kind: Any, value: Any, what: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what}: {message(error.errors()[0])}") from None


def hyperparameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters of a method with `given` in place of defaults.

    Raises `ValueError` naming the bad one, or the method where it cannot be loaded.
    """
    method = distilbench_methods.load(name)
    known = [item.name for item in dataclasses.fields(cast(Any, method))]
    for key in given:
        if key not in known:
            raise ValueError(one_of(f"hyperparameter of {name}:", str(key), known))
    try:
        values = dataclasses.asdict(cast(Any, _adapter(method).validate_python(given)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join([name, *(str(part) for part in first["loc"]), message(first)])) from None
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {key} must be finite, got {value}")
        if isinstance(given.get(key), bool) and not isinstance(value, bool):
            raise ValueError(f"{name}: yes or no is no value for {key}, got {given[key]}")
    check_numbers(values)
    return values


@cache
def _adapter(method: type[Method]) -> TypeAdapter[Method]:
    return TypeAdapter(method)
