"""All that a study reads, brought into one folder for later use without a network.

A mirror is laid out by Hub path: `<mirror>/<owner>/<name>/`. Each folder that is fetched holds its source, revision and
licence in SOURCE.json, and the hashes of its files in SHA256SUMS. What the mirror has is checked and left as it is.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from distilbench.core.errors import UserError
from distilbench.core.machine import MIRROR_VARIABLE, writable
from distilbench.core.mirror import below, check
from distilbench.core.sealed import write_sealed
from distilbench.data.hub import FILE_PREFIX, HubName, newest_commit, open_split, worded
from distilbench.data.hub_folder import CARDS
from distilbench.data.text import EMBEDDED, MIRROR_PREFIX, open_source, resolve, source_names
from distilbench.evaluation.tasks.profiles import expand
from distilbench.models.export import licence_of
from distilbench.models.finding import PACKAGED_NAME, find_model, in_mirror, local_folder
from distilbench.records.record import SOURCE_FILE, dump_json
from distilbench.study.sections.models import spec_of
from distilbench.study.sections.texts import LabelledSpec, OwnTask, TaskSpec, TextSpec
from distilbench.study.study import Study

README, CARD = CARDS
FILES = "single_files"
"""What files that were fetched one by one stand under, so that they do not pass for a split."""
ABSENT = "not fetched"
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
    for name in spec_of(study.teacher).models():
        yield _part("teacher", name, partial(_find, name, mirror))
    if study.student.model is not None:
        yield _part("student", study.student.model, partial(_find, study.student.model, mirror))
    for name in source_names(study.text):
        yield _part("text", name, partial(_text, name, study.text, mirror, "text"))
    if study.labelled is not None:
        name = study.labelled.source
        yield _part("labelled", name, partial(_text, name, study.labelled, mirror, "labelled"))
    if study.dev is not None:
        yield _part("dev", study.dev.source, partial(_text, study.dev.source, study.dev, mirror, "dev"))
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


def _text(name: str, spec: TextSpec | LabelledSpec, mirror: Path, section: str) -> tuple[str, bool]:
    if name == EMBEDDED:
        return "comes with distilbench", False
    on_hub = HubName.of(name, section, mirror)
    if on_hub is None:
        path = resolve(name, mirror, section)
        check(path, mirror, again=True)
        return str(path), False
    if on_hub.in_mirror is not None:
        check(on_hub.in_mirror, mirror, again=True)
    fetched = not _is_whole(on_hub, spec)
    if fetched:
        _fetch(on_hub, spec, mirror / on_hub.id)
    open_source(name, spec, mirror, section)
    return str(on_hub.in_mirror), fetched


def _is_whole(name: HubName, spec: TextSpec | LabelledSpec) -> bool:
    """Whether the mirror has it. Raises `UserError` for a folder of the user's own which lacks something."""
    folder = name.in_mirror
    if folder is None or name.file is not None:
        return folder is not None
    try:
        open_split(name, spec.config, spec.split)
    except UserError:
        if not _fetched(folder):
            raise
        return False
    return True


def _fetch(name: HubName, spec: TextSpec | LabelledSpec, folder: Path) -> None:
    """Bring a split, or a file, into a folder, beside what was fetched into it before and from the same commit."""
    from huggingface_hub import DatasetCard, snapshot_download

    before = _fetched(folder)
    if folder.is_dir() and not before:
        raise UserError(f"{name.section}.source: {folder} has no {name.file}; put it there, or remove the folder")
    on_hub = replace(name, mirror=None)
    with worded(on_hub):
        commit = before.get("revision") or newest_commit(name.id)
    split = open_split(replace(on_hub, commit=commit), spec.config, spec.split)
    files = [file.removeprefix(f"{FILE_PREFIX}{name.id}@{commit}/") for file in split.files]
    config, part = (FILES, FILES) if name.file else (str(split.builder.config.name), split.split)
    there = before.get("data_files", {})
    kept = there.get(FILES, {}).get(FILES, []) if name.file else []
    fetched = {**there, config: {**there.get(config, {}), part: sorted({*kept, *files}) if name.file else files}}

    def copy(inside: Path) -> None:
        if before:
            shutil.copytree(folder, inside, dirs_exist_ok=True)
        wanted = [*map(glob.escape, files), README]
        snapshot_download(name.id, repo_type="dataset", revision=commit, allow_patterns=wanted, local_dir=inside)
        # Where it keeps the state of downloads.
        shutil.rmtree(inside / ".cache", ignore_errors=True)
        card = DatasetCard.load(inside / README).data.to_dict() if (inside / README).is_file() else {}
        (inside / CARD).write_text(yaml.safe_dump({"configs": _configs(card.get("configs", []), fetched)}), "utf-8")
        source = {"hub": name.id, "revision": commit, "licence": licence_of(inside)}
        dump_json({**source, "data_files": fetched}, inside / SOURCE_FILE)

    with worded(on_hub):
        write_sealed(folder, copy)


def _fetched(folder: Path) -> dict[str, Any]:
    """What SOURCE.json says of a data set that was fetched; nothing of other folders."""
    try:
        said = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and "data_files" in said else {}


def _configs(said: list[dict[str, Any]], fetched: dict[str, dict[str, list[str]]]) -> list[dict[str, Any]]:
    """Configurations for `datasets` to read: all that there are on the Hub, so that the default stays what it is.

    Files are named one by one: what else lies in the folder is no data, and patterns would do with fewer files.
    """
    options = {entry["config_name"]: entry for entry in said} or {"default": {}}
    # The format of all is that of the first.
    names = sorted({**fetched, **options}, key=lambda name: (name not in fetched, name == FILES))
    return [
        {key: value for key, value in options.get(name, {}).items() if key != "data_dir"}
        | {
            "config_name": name,
            "data_files": [
                {"split": split, "path": files} for split, files in fetched.get(name, {"train": [ABSENT]}).items()
            ],
        }
        for name in names
    ]


def _task(wanted: TaskSpec, mirror: Path) -> tuple[str, bool]:
    from distilbench.evaluation.tasks.by_name import MissingDataError, folder_in, load_task
    from distilbench.evaluation.tasks.fetch import store_task, was_fetched

    if isinstance(wanted, OwnTask):
        if wanted.source.startswith(MIRROR_PREFIX):
            name = wanted.source.removeprefix(MIRROR_PREFIX)
            check(below(mirror, name, f"tasks.{wanted.name}.source"), mirror, again=True)
        load_task(wanted, mirror)
        return wanted.source, False
    folder = folder_in(mirror, wanted)
    is_there = folder is not None and folder.is_dir()
    if folder is not None and is_there:
        check(folder, mirror, again=True)
    try:
        task = load_task(wanted, mirror)
    except UserError as error:
        if folder is None or not is_there or not was_fetched(folder):
            raise
        # Another part of the task was fetched before.
        try:
            task, is_there = load_task(wanted, None), False
        except MissingDataError:
            raise error from None
    if folder is None:
        return "comes with distilbench", False
    if not is_there:
        store_task(task, mirror)
    return str(folder), not is_there
