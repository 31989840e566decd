"""Which subsets of a task of mteb are scored, and how a task is named by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distilbench.core.errors import UserError, one_of
from distilbench.study.sections.texts import PartOfTask

WHOLE = "default"
"""mteb's name for the only subset of a task that has one."""
OF, AND, IN = "@", ",", "#"
"""`STS17@en-en,es-es`, `MTOPDomainClassification@en#test`. All may be in names of files, which results have."""
LONGEST_NAME = 120
MOST_LISTED = 12


def within(subset: str, name: str) -> str:
    """How a split, or an example, of a subset is named among those of all subsets of its task."""
    return name if subset == WHOLE else f"{subset}/{name}"


def parsed(name: str) -> str | PartOfTask:
    """A task's name as it stands in a record or on the command line, taken apart where it names subsets or splits."""
    rest, in_splits, splits = name.partition(IN)
    task, of, subsets = rest.partition(OF)
    if not of and not in_splits:
        return name
    return PartOfTask(
        name=task,
        subsets=tuple(subsets.split(AND)) if of else None,
        splits=tuple(splits.split(AND)) if in_splits else None,
    )


def full_name(task: str, subsets: Sequence[str], splits: Sequence[str]) -> str:
    """The name of a part of a task, which `parsed` takes apart."""
    of_subsets = f"{OF}{AND.join(subsets)}" if subsets else ""
    return f"{task}{of_subsets}{IN}{AND.join(splits)}" if splits else f"{task}{of_subsets}"


def listed(names: Sequence[str]) -> str:
    """Some names for a sentence, never many."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"{', '.join(names[:MOST_LISTED]) or 'none'}{more}"


def choose(instance: Any, spec: PartOfTask) -> str:
    """Let a task of mteb score some of its subsets only, in mteb's order; gives its name.

    Raises `UserError` for subsets and languages that it has not.
    """
    known: dict[str, list[str]] = instance.metadata.hf_subsets_to_langscripts
    if spec.subsets is not None:
        wanted = _named(spec, known)
    else:
        wanted = _in_languages(spec, known) if spec.languages is not None else set(known)
    instance.hf_subsets = [subset for subset in known if subset in wanted]
    of_subsets = [] if len(instance.hf_subsets) == len(known) else instance.hf_subsets
    name = full_name(spec.name, of_subsets, _choose_splits(instance, spec))
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"tasks: {len(instance.hf_subsets)} subsets of {spec.name} are too many for the name of one task; list it "
            "several times with fewer subsets each, or score them all"
        )
    return name


def _choose_splits(instance: Any, spec: PartOfTask) -> list[str]:
    """Let a task score some of its splits only; gives them, none where they are all."""
    known = list(instance.metadata.eval_splits)
    for split in spec.splits or ():
        if split not in known:
            raise UserError(f"tasks: {spec.name}: {one_of('split', split, known)}")
    wanted = [split for split in known if spec.splits is None or split in spec.splits]
    instance.filter_eval_splits(wanted)
    return wanted if len(wanted) < len(known) else []


def _named(spec: PartOfTask, known: dict[str, list[str]]) -> set[str]:
    for subset in spec.subsets or ():
        if subset not in known:
            raise UserError(f"tasks: {spec.name}: {one_of('subset', subset, known)}")
    return set(spec.subsets or ())


def _in_languages(spec: PartOfTask, known: dict[str, list[str]]) -> set[str]:
    asked = set(spec.languages or ())
    there = {script for scripts in known.values() for script in scripts}
    for language in asked:
        if language not in there | {language_of(script) for script in there}:
            raise UserError(f"tasks: {spec.name}: {one_of('language', language, set(map(language_of, there)))}")
    found = {
        subset for subset, scripts in known.items() if all({script, language_of(script)} & asked for script in scripts)
    }
    if not found:
        raise UserError(
            f"tasks: {spec.name}: none of its subsets is in {listed(sorted(asked))} alone; its subsets are "
            f"{listed(list(known))}"
        )
    return found


def language_of(script: str) -> str:
    """`eng` of `eng-Latn`."""
    return script.partition("-")[0]
