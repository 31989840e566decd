"""All that a study reads, brought into one folder for later use without a network.

A mirror is laid out by Hub path: `<mirror>/<owner>/<name>/`. Each folder that is fetched holds its source, revision and
licence in SOURCE.json, and the hashes of its files in SHA256SUMS. What the mirror has is checked and left as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from distilbench.core.errors import UserError
from distilbench.core.machine import MIRROR_VARIABLE, writable
from distilbench.core.mirror import check
from distilbench.core.sealed import write_sealed
from distilbench.data.text import EMBEDDED, MIRROR_PREFIX, resolve, source_names
from distilbench.evaluation.tasks.profiles import expand
from distilbench.models.export import licence_of
from distilbench.models.finding import PACKAGED_NAME, find_model, in_mirror, local_folder
from distilbench.records.record import SOURCE_FILE, dump_json
from distilbench.study.sections.texts import OwnTask, TaskSpec
from distilbench.study.study import Study

Kind = Literal["teacher", "student", "text", "labelled", "dev", "task"]


@dataclass(frozen=True)
class Part:
    """Something that a study reads."""

    kind: Kind
    name: str
    where: str
    """Where it is, or why it cannot be had."""
    state: Literal["there", "fetched", "missing"]


Look = Callable[[], tuple[str, bool]]
"""Where a part is, and whether it had to be fetched. Raises `UserError` where it cannot be had."""


def mirror_to_fill(out: str | None) -> Path:
    """The folder that is asked for, or else the mirror in use, made if need be.

    Raises `UserError` where there is neither, or where nothing can be written.
    """
    folder = out or os.environ.get(MIRROR_VARIABLE)
    if not folder:
        raise UserError(f"there is no mirror to fill; give --out DIR, or set {MIRROR_VARIABLE}")
    return writable(Path(folder), "--out")


def prefetch(study: Study, mirror: Path) -> Iterator[Part]:
    """Each part of a study, after it was looked for and, where it was not there, fetched into `mirror`."""
    if isinstance(study.teacher, str):
        yield _part("teacher", study.teacher, partial(_find, study.teacher, mirror))
    if study.student.model is not None:
        yield _part("student", study.student.model, partial(_find, study.student.model, mirror))
    for name in source_names(study.text):
        yield _part("text", name, partial(_text, name, mirror, "text"))
    if study.labelled is not None:
        yield _part("labelled", study.labelled.source, partial(_text, study.labelled.source, mirror, "labelled"))
    if study.dev is not None:
        yield _part("dev", study.dev.source, partial(_text, study.dev.source, mirror, "dev"))
    for task in expand(study.tasks):
        yield _part("task", task if isinstance(task, str) else task.name, partial(_task, task, mirror))


def _part(kind: Kind, name: str, look: Look) -> Part:
    try:
        where, fetched = look()
    except UserError as error:
        return Part(kind, name, str(error), "missing")
    return Part(kind, name, where, "fetched" if fetched else "there")


def _find(name: str, mirror: Path) -> tuple[str, bool]:
    found = find_model(name, mirror)
    check(found.folder, mirror, again=True)
    if name == PACKAGED_NAME or local_folder(name) or in_mirror(name, mirror):
        return str(found.folder), False

    # From the Hub's cache, which belongs to one user of one machine.
    def copy(folder: Path) -> None:
        shutil.copytree(found.folder, folder, dirs_exist_ok=True)
        source = {"hub": name, "revision": found.folder.name, "licence": licence_of(found.folder)}
        dump_json({**source, **found.hashes()}, folder / SOURCE_FILE)

    write_sealed(mirror / name, copy)
    return str(mirror / name), True


def _text(name: str, mirror: Path, section: str) -> tuple[str, bool]:
    if name == EMBEDDED:
        return "comes with distilbench", False
    path = resolve(name, mirror, section)
    check(path, mirror, again=True)
    return str(path), False


def _task(wanted: TaskSpec, mirror: Path) -> tuple[str, bool]:
    from distilbench.evaluation.tasks.by_name import folder_in, load_task
    from distilbench.evaluation.tasks.fetch import store_task

    if isinstance(wanted, OwnTask):
        if wanted.source.startswith(MIRROR_PREFIX):
            check(mirror / wanted.source.removeprefix(MIRROR_PREFIX), mirror, again=True)
        load_task(wanted, mirror)
        return wanted.source, False
    folder = folder_in(mirror, wanted)
    is_there = folder is not None and folder.is_dir()
    if folder is not None and is_there:
        check(folder, mirror, again=True)
    task = load_task(wanted, mirror)
    if folder is None:
        return "comes with distilbench", False
    if not is_there:
        store_task(task, mirror)
    return str(folder), not is_there
