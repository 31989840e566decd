"""What travels where nodes share no file system: text and teacher's signals to them, models and records back.

A node keeps what it has fetched in its own cache. Tasks do not travel: nodes find them as the driver does, in a mirror
of their own or on the Hub. A run's checkpoints stay on its node.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from distilbench.core.errors import UserError
from distilbench.core.machine import MIRROR_VARIABLE, Settings, cache_folder
from distilbench.evaluation.tasks.contamination import folder_of
from distilbench.models.model_folder import StoredModel
from distilbench.runs.engines.depot import Depot
from distilbench.runs.run import record_folder
from distilbench.runs.trained import is_trained, trained_folder
from distilbench.runs.workbench import Workbench
from distilbench.study.study import Run, Study

TEACHER_FOLDER = "teachers"


@dataclass(frozen=True)
class Shipment:
    """What a node needs of a study before its first run."""

    uri: str
    teacher: str
    """The name of the teacher, and where its folder is to lie."""
    teacher_folder: str
    keys: dict[str, str]
    """Keys of the study's texts, which are otherwise found by reading their sources; by attribute of the workbench."""
    folders: dict[str, str]
    """Name in the depot -> place below the cache."""


def ship(bench: Workbench, depot: Depot) -> Shipment:
    """Send what is not there yet. Raises `UserError` where that fails."""
    cache = bench.settings.cache
    keys = {"text_key": bench.text_key}
    for name in ("labelled", "dev"):
        if getattr(bench.study, name) is not None:
            keys[f"{name}_key"] = getattr(bench, f"{name}_key")
    places = {f"corpora/{key}" for key in {*keys.values(), bench.corpus_key}}
    if bench.contamination is not None:
        places.add(str(folder_of(bench.text_key, bench.tasks, cache).relative_to(cache)))
    folders = {place: place for place in places if (cache / place).is_dir()}
    for store in {bench.signals_folder(key) for key in {bench.corpus_key, keys.get("labelled_key", "")}}:
        if store.is_dir():
            # A store grows: each state of it is another archive.
            folders[f"signals/{store.name}-{_state(store)}"] = str(store.relative_to(cache))
    bench.announce(f"sending text and teacher's signals to {depot.uri}")
    for name, place in folders.items():
        if not depot.has(name):
            depot.send(cache / place, name)
    teacher = f"{TEACHER_FOLDER}/{bench.teacher_hashes['weights']}"
    if not depot.has(teacher):
        depot.send(bench.teacher_model.folder, teacher)
    return Shipment(depot.uri, bench.teacher_model.name, teacher, keys, folders | {teacher: teacher})


def _state(store: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(store.glob("*.crc")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def unpacked(study: Study, given: Settings, shipment: Shipment) -> Workbench:
    """On a node: the study's workbench in the node's own cache, with everything that was shipped."""
    depot, cache = Depot(shipment.uri), cache_folder()
    for name, place in shipment.folders.items():
        _fetch_once(depot, cache, name, place)
    named = os.environ.get(MIRROR_VARIABLE)
    mirror = Path(named) if named else given.mirror
    bench = Workbench(study, replace(given, cache=cache, out=cache / "outgoing", mirror=mirror))
    bench.teacher_model = StoredModel(shipment.teacher, cache / shipment.teacher_folder)
    for attribute, key in shipment.keys.items():
        setattr(bench, attribute, key)
    return bench


def _fetch_once(depot: Depot, cache: Path, name: str, place: str) -> None:
    mark = cache / "shipped" / name
    mark.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(mark.with_name(f"{mark.name}.lock")):
        if mark.exists() and (cache / place).is_dir():
            return
        if not depot.fetch(name, cache / place):
            node = os.uname().nodename
            raise UserError(f"the node {node} does not find {name} at {depot.uri}; every node has to reach it")
        mark.touch()


def send_run(bench: Workbench, run: Run, depot: Depot) -> None:
    """From a node: a run's model, where it has one, and its record."""
    send_model(bench, run, depot)
    depot.send(record_folder(bench, run), _record(bench, run))


def send_model(bench: Workbench, run: Run, depot: Depot) -> None:
    """A run's model, if it is here and not there: to be scored elsewhere, or because it was trained here."""
    if is_trained(bench, run) and not depot.has(_model(bench, run)):
        depot.send(trained_folder(bench, run), _model(bench, run))


def fetch_model(bench: Workbench, run: Run, depot: Depot) -> None:
    """A run's model, if it is there and not here."""
    if not is_trained(bench, run):
        depot.fetch(_model(bench, run), trained_folder(bench, run))


def fetch_record(bench: Workbench, run: Run, depot: Depot) -> None:
    """A run's record, in the place of one that is here."""
    depot.fetch(_record(bench, run), record_folder(bench, run))


def _model(bench: Workbench, run: Run) -> str:
    return f"runs/{bench.run_id(run)}"


def _record(bench: Workbench, run: Run) -> str:
    return f"results/{bench.name}/{bench.run_id(run)}"
