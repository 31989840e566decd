"""What a method says of itself: name, hyperparameters, the models that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, cast

from distilbench.conformance.kit import (
    BATCH_SIZE,
    DIFFERENT,
    DIMS,
    Kit,
    NotApplicable,
    NotConforming,
    differing,
    said,
    state_of,
)
from distilbench.study.method_catalogue import describe_class
from distilbench_methods.base import UnsuitableError

LONGEST_SUMMARY = 120


def describes_itself(kit: Kit) -> None:
    """It has a name, a summary line of at most 120 characters, a source, and a meaning for every hyperparameter."""
    if kit.method.name != kit.name:
        raise NotConforming(f"it is registered as {kit.name!r}, but its class calls itself {kit.method.name!r}")
    try:
        entry = describe_class(kit.kind)
    except (OSError, TypeError) as error:
        raise NotApplicable(f"the file of its class cannot be read: {said(error)}") from None
    if not entry.summary.endswith(".") or len(entry.summary) > LONGEST_SUMMARY:
        raise NotConforming(
            f"the first line of its module's docstring must be a sentence ending in a full stop, of at most "
            f"{LONGEST_SUMMARY} characters; it is {entry.summary!r}"
        )
    if not kit.method.source.strip():
        raise NotConforming("`source` is empty: name the paper and the equation")
    told = {item.name for item in entry.hyperparameters if item.meaning}
    if silent := [name for name in kit.hyperparameters if name not in told]:
        raise NotConforming(f"no docstring stands behind {', '.join(silent)} in the class that is registered")


def hyperparameters_survive(kit: Kit) -> None:
    """Its hyperparameters pass through JSON and pydantic into studies and records, and come back equal."""
    from pydantic import TypeAdapter

    parameters: Any = getattr(kit.kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise NotConforming("its class must be a frozen dataclass: hyperparameters never change")
    try:
        text = json.dumps(asdict(cast(Any, kit.method)))
        back = TypeAdapter(kit.kind).validate_json(text)
    except Exception as error:
        raise NotConforming(f"its hyperparameters do not pass through JSON: {said(error)}") from None
    if back != kit.method:
        raise NotConforming(f"its hyperparameters come back from JSON as {back}, not {kit.method}")


def search_space_fits(kit: Kit) -> None:
    """What it lets be tuned are hyperparameters whose defaults lie within, and the ends of every range are accepted."""
    if not kit.kind.search_space:
        raise NotApplicable("it declares nothing to be tuned")
    defaults = {item.name: item.default for item in fields(cast(Any, kit.kind))}
    for name, values in kit.kind.search_space.items():
        if name not in defaults:
            raise NotConforming(f"search_space names {name}, which is no hyperparameter")
        if defaults[name] not in values:
            raise NotConforming(
                f"search_space has {name} at {values.described()}, which leaves out its default {defaults[name]}"
            )
        for end in values.ends():
            try:
                kit.kind(**{name: end})
            except ValueError as error:
                raise NotConforming(f"search_space has {name} {end!r}, which the method refuses: {error}") from None


def suits_models(kit: Kit) -> str:
    """There are models that suit it, and what it asks for is the same whenever it is asked."""
    refusals = []
    for dims in DIMS:
        try:
            if kit.method.needs(dims) != kit.method.needs(dims):
                raise NotConforming("needs() gives another answer when it is asked again")
        except UnsuitableError as refusal:
            refusals.append(str(refusal))
            continue
        return "" if dims is DIFFERENT else f"tried with {dims.student}, {dims.teacher}: {refusals[0]}"
    raise NotConforming(f"none of the {len(DIMS)} pairs of models that were tried suits it; the last: {refusals[-1]}")


def counts_are_whole(kit: Kit) -> None:
    """Numbers of negatives and of frozen layers are whole and in range; what couples the batch is said in words."""
    for size in (1, BATCH_SIZE, 256):
        count = kit.method.negatives_per_step(size)
        if type(count) is not int or count < 0:
            raise NotConforming(f"negatives_per_step({size}) is {count!r}, not a whole number from 0 on")
    for moment in kit.moments():
        frozen = kit.method.frozen_layers(moment.aux)
        if type(frozen) is not int or not 0 <= frozen <= kit.dims.student.layers:
            raise NotConforming(
                f"frozen_layers is {frozen!r}, not a whole number from 0 to the student's {kit.dims.student.layers}"
            )
    if not isinstance(kit.method.coupled, str):
        raise NotConforming(f"coupled is {kit.method.coupled!r}, not text")


def starts_from_the_seed(kit: Kit) -> None:
    """Heads and state start from torch's seed alone: equal seeds give equal starts."""
    if names := differing(state_of(kit.aux(seed=5)), state_of(kit.aux(seed=5))):
        raise NotConforming(f"build_aux and fit give another {names[0]} under the same seed")
