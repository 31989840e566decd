"""Which tasks mteb has that students can be scored on: found by words and languages, without their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mteb

from distilbench.core.errors import UserError, one_of
from distilbench.evaluation.task_types.kinds import SCORED_TYPES, is_scored
from distilbench.evaluation.tasks.subsets import WHOLE, language_of


@dataclass(frozen=True)
class KnownTask:
    """A task as mteb's catalogue has it."""

    name: str
    type: str
    languages: tuple[str, ...]
    """ISO 639-3 codes of what is in it, or in those of its subsets that are in the language that was asked for."""
    subsets: tuple[str, ...]
    """Those subsets; empty for a task that has one."""
    metric: str
    dataset: str
    """Its id on the Hub, and its place in a mirror."""
    about: str


def find_tasks(words: str = "", language: str | None = None) -> list[KnownTask]:
    """The tasks whose name, type or description has all of some words, in mteb's order.

    With a language, those that have subsets in that language alone. Raises `UserError` for a language that no task is
    in.
    """
    every = mteb.get_tasks(exclude_superseded=False)
    tasks = [task for task in every if task.metadata.type in SCORED_TYPES and is_scored(task)]
    known = {code for task in tasks for codes in _languages(task).values() for code in codes}
    if language is not None and language not in known:
        raise UserError(f"--language: {one_of('language', language, known)}; write it as ISO 639-3 does")
    found = [_known(task, language) for task in tasks if _has(task, words.lower().split())]
    return [task for task in found if language is None or task.languages]


def _has(task: Any, words: list[str]) -> bool:
    said = f"{task.metadata.name} {task.metadata.type} {task.metadata.description}".lower()
    return all(word in said for word in words)


def _languages(task: Any) -> dict[str, set[str]]:
    """Subset -> the languages in it."""
    by_subset = task.metadata.hf_subsets_to_langscripts
    return {subset: set(map(language_of, scripts)) for subset, scripts in by_subset.items()}


def _known(task: Any, language: str | None) -> KnownTask:
    metadata = task.metadata
    wanted = {subset: codes for subset, codes in _languages(task).items() if language is None or codes == {language}}
    return KnownTask(
        name=metadata.name,
        type=metadata.type,
        languages=tuple(sorted(set().union(*wanted.values()))),
        subsets=tuple(subset for subset in wanted if subset != WHOLE),
        metric=metadata.main_score,
        dataset=metadata.dataset["path"],
        about=" ".join(metadata.description.split()),
    )
