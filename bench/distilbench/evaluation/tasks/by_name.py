"""Tasks by name: of mteb, from the Hub or a mirror, and those that come with distilbench; with a hash of their data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, disable_progress_bars
from mteb.abstasks import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval

from distilbench.core.errors import UserError, one_of
from distilbench.core.mirror import check
from distilbench.core.seeds import preserved_rng
from distilbench.evaluation.task_types.kinds import SCORED_TYPES, Kind, is_mean_over_queries, is_of, is_scored, kind_of
from distilbench.evaluation.tasks import embedded
from distilbench.evaluation.tasks.mirror import load_from_mirror
from distilbench.evaluation.tasks.own import own_task
from distilbench.evaluation.tasks.profiles import PROFILES, SICK_TEST
from distilbench.evaluation.tasks.subsets import OF, WHOLE, choose, parsed
from distilbench.study.sections.texts import OwnTask, PartOfTask, TaskSpec

disable_progress_bars()

ROWS_AT_ONCE = 4096

DOCUMENTS_PER_QUERY = 10
"""Documents kept for each query when `--limit` shortens a retrieval task."""


class MissingDataError(UserError):
    """An official task's data are neither in the mirror nor on a Hub that can be reached."""


@dataclass(frozen=True)
class Task:
    """A loaded mteb task."""

    name: str
    instance: Any
    data_sha256: str

    @property
    def kind(self) -> str:
        """mteb's task type: STS, Retrieval ..."""
        return str(self.instance.metadata.type)

    @property
    def is_retrieval(self) -> bool:
        return is_of(self.instance, AbsTaskRetrieval)

    @property
    def tables(self) -> Kind:
        """What is particular to its type, of a task whose data are tables."""
        return kind_of(self.instance)

    @property
    def main_metric(self) -> str:
        return str(self.instance.metadata.main_score)

    @property
    def num_texts(self) -> int:
        """Texts that a model embeds to be scored."""
        return sum(
            len(data["corpus"]) + len(data["queries"])
            if isinstance(data, dict)
            else sum(1 for _ in self.tables.texts(self.instance, self.tables.embedded(self.instance, split, data)))
            for _, split, data in self.splits_read()
        )

    def splits(self) -> list[tuple[str, str, Any]]:
        """(subset, split, data) of everything that is scored."""
        return self._splits(self.instance.eval_splits)

    def splits_read(self) -> list[tuple[str, str, Any]]:
        """As `splits`, with what is read beside that: a classifier learns from another split."""
        return self._splits(self.instance.eval_splits if self.is_retrieval else self.tables.splits(self.instance))

    def _splits(self, wanted: Sequence[str]) -> list[tuple[str, str, Any]]:
        parts = _parts(self.instance)
        return [(subset, split, parts[subset][split]) for subset in parts for split in wanted if split in parts[subset]]


def load_tasks(wanted: Sequence[TaskSpec], mirror: Path | None, limit: int | None = None) -> list[Task]:
    """As `load_task`, of several; of data that cannot be had, all are named in one sentence."""
    # What the mirror lacks is looked for first: nobody should wait for the rest to hear of it.
    order = sorted(range(len(wanted)), key=lambda place: _is_in(mirror, wanted[place]))
    found: dict[int, Task] = {}
    missing: dict[str, MissingDataError] = {}
    for place in order:
        if missing and _is_in(mirror, wanted[place]):
            continue
        try:
            found[place] = load_task(wanted[place], mirror, limit)
        except MissingDataError as error:
            spec = wanted[place]
            missing[spec if isinstance(spec, str) else spec.name] = error
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        where = f"the mirror {mirror} lacks" if mirror is not None else "no mirror is given, and the Hub did not give"
        raise UserError(
            f"{where} the data of {len(missing)} tasks: {', '.join(missing)}; run `distilbench prefetch` where the Hub "
            "can be reached, or leave them out"
        )
    return [found[place] for place in range(len(wanted))]


def _is_in(mirror: Path | None, wanted: TaskSpec) -> bool:
    if mirror is None or isinstance(wanted, OwnTask):
        return True
    folder = folder_in(mirror, wanted)
    return folder is None or folder.is_dir()


def load_task(wanted: TaskSpec, mirror: Path | None, limit: int | None = None) -> Task:
    """Load a task by name, or one of the user's own, and hash its data; global random state is left as it was.

    Raises `UserError` for an unknown task, and for data that are neither in the mirror nor reachable.
    """
    with preserved_rng():
        spec = parsed(wanted) if isinstance(wanted, str) else wanted
        name, instance = _own(spec, mirror) if isinstance(spec, OwnTask) else _by_name(spec, mirror)
    if limit is not None:
        _shorten(instance, limit)
    return Task(name, instance, _data_sha256(Task(name, instance, "")))


def _by_name(spec: str | PartOfTask, mirror: Path | None) -> tuple[str, Any]:
    name = spec if isinstance(spec, str) else spec.name
    instance = _instance(name)
    _check_kind(instance, name)
    if isinstance(spec, PartOfTask):
        name = choose(instance, spec)
    if name in embedded.TASKS:
        instance.load_data()
    else:
        _load_official(instance, name, mirror)
    return name, instance


def _own(spec: OwnTask, mirror: Path | None) -> tuple[str, Any]:
    if is_known(spec.name):
        raise UserError(f"tasks: {spec.name} is a task of mteb or a profile; give your own data another name")
    return spec.name, own_task(spec, mirror)


def is_known(name: str) -> bool:
    """Whether a task, or a part of one, has a name that everybody knows it by: none of the user's own data has."""
    spec = parsed(name)
    name = spec if isinstance(spec, str) else spec.name
    return name in PROFILES or name in embedded.TASKS or name == SICK_TEST or is_of_mteb(name)


def is_of_mteb(name: str) -> bool:
    """Whether mteb has a task of this name."""
    try:
        return bool(mteb.get_task(name))
    except KeyError:
        return False


@cache
def known_names() -> list[str]:
    """Every name that a study may list under `tasks`, profiles aside."""
    return sorted(
        {*embedded.TASKS, SICK_TEST, *(task.metadata.name for task in mteb.get_tasks(exclude_superseded=False))}
    )


def _instance(name: str) -> Any:
    if name in embedded.TASKS:
        return embedded.TASKS[name]()
    if name == SICK_TEST:
        return embedded.SickTest()
    if name in PROFILES:
        raise UserError(f"tasks: {name} is a profile of tasks; name one or all of them: {', '.join(PROFILES[name])}")
    try:
        return mteb.get_task(name)
    except KeyError:
        benchmarks = [benchmark.name for benchmark in mteb.get_benchmarks()]
        raise UserError(f"tasks: {one_of('task', name, [*known_names(), *PROFILES, *benchmarks])}") from None


def _check_kind(instance: Any, name: str) -> None:
    if instance.is_aggregate:
        parts = ", ".join(part.metadata.name for part in instance.metadata.tasks)
        raise UserError(f"tasks: {name} is several tasks in one; name those that you mean: {parts}")
    if is_of(instance, AbsTaskRetrieval) and not is_mean_over_queries(instance):
        raise UserError(
            f"tasks: the score of {name}, {instance.metadata.main_score}, is no mean over queries, so that its error "
            "cannot be stated; leave it out, or name another task (distilbench tasks lists them)"
        )
    if not is_scored(instance):
        of_what = " and ".join(instance.metadata.modalities)
        raise UserError(
            f"tasks: {name} is of the type {instance.metadata.type} and of {of_what}; distilbench scores tasks of text "
            f"alone of these types: {', '.join(SCORED_TYPES)}"
        )


def folder_in(mirror: Path, wanted: str | PartOfTask) -> Path | None:
    """Where an official task's data lie in a mirror, if it has them; None for data that come with distilbench."""
    spec = parsed(wanted) if isinstance(wanted, str) else wanted
    name = spec if isinstance(spec, str) else spec.name
    with preserved_rng():
        return None if name in embedded.TASKS else mirror / _instance(name).metadata.dataset["path"]


def _load_official(instance: AbsTask, name: str, mirror: Path | None) -> None:
    folder = mirror / instance.metadata.dataset["path"] if mirror else None
    if mirror is not None and folder is not None and folder.is_dir():
        check(folder, mirror)
        load_from_mirror(instance, folder, name)
        prepare(instance)
        return
    where = f"not in the mirror ({folder} is missing)" if folder else "no mirror is given (--mirror DIR)"
    if how := getattr(instance, "how_to_get", None):
        raise MissingDataError(f"the data of task {name} cannot be had: {where}; {how}")
    try:
        instance.load_data()
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"the data of task {name} cannot be had: {where}, and the Hub gave: {str(error).splitlines()[0]}; run "
            f"where the Hub can be reached, or put {instance.metadata.dataset['path']} into the mirror"
        ) from None
    prepare(instance)
    if instance.metadata.is_multilingual and (missing := set(instance.hf_subsets) - set(instance.dataset)):
        raise UserError(f"the Hub's data of task {name} lack the subset {min(missing)}; name others as its subsets")


def prepare(instance: Any) -> None:
    """Bring a task's loaded tables into the form in which they are kept."""
    if is_of(instance, AbsTaskRetrieval):
        for data in (data for splits in _parts(instance).values() for data in splits.values()):
            for name in ("corpus", "queries"):
                # As a mirror gives them: mteb reads no such column.
                data[name] = data[name].select_columns([one for one in data[name].column_names if one != "metadata"])
        return
    for splits in _parts(instance).values():
        for name in [name for name in kind_of(instance).splits(instance) if name in splits]:
            splits[name] = kind_of(instance).prepare(instance, splits[name])


def _parts(instance: Any) -> dict[str, Any]:
    """Subset -> split -> data, of those that are scored."""
    if is_of(instance, AbsTaskRetrieval) or instance.metadata.is_multilingual:
        return {subset: instance.dataset[subset] for subset in instance.hf_subsets}
    return {WHOLE: instance.dataset}


def _shorten(instance: Any, limit: int) -> None:
    for splits in _parts(instance).values():
        for name, data in splits.items():
            if is_of(instance, AbsTaskRetrieval):
                _shorten_retrieval(data, limit)
            else:
                splits[name] = kind_of(instance).shorten(instance, data, limit)


def _shorten_retrieval(split: dict[str, Any], limit: int) -> None:
    split["queries"] = split["queries"].select(range(min(limit, len(split["queries"]))))
    split["relevant_docs"] = {query: split["relevant_docs"][query] for query in split["queries"]["id"]}
    judged = {document for relevant in split["relevant_docs"].values() for document in relevant}
    if candidates := split.get("top_ranked"):
        split["top_ranked"] = {query: candidates[query] for query in split["queries"]["id"] if query in candidates}
        judged.update(*split["top_ranked"].values())
    ids = split["corpus"]["id"]
    others = [row for row, name in enumerate(ids) if name not in judged][: limit * DOCUMENTS_PER_QUERY]
    split["corpus"] = split["corpus"].select(
        sorted([*others, *(row for row, name in enumerate(ids) if name in judged)])
    )


def _rows(table: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a table, of which the library makes many at once faster than one at a time."""
    for start in range(0, len(table), ROWS_AT_ONCE):
        columns = table[start : start + ROWS_AT_ONCE]
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _data_sha256(task: Task) -> str:
    digest = hashlib.sha256()
    if task.is_retrieval and task.instance.ignore_identical_ids and not is_of_mteb(task.name.partition(OF)[0]):
        # The name of a task of mteb says whether it does.
        digest.update(b"ignore_identical_ids\n")
    for subset, split, data in task.splits_read():
        digest.update(f"{subset}/{split}\n".encode())
        tables = [data["corpus"], data["queries"]] if isinstance(data, dict) else [data]
        for table in tables:
            if isinstance(data, dict):
                # Else a document could pass for a query.
                digest.update(f"{len(table)}\n".encode())
            for row in _rows(table):
                digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        if isinstance(data, dict):
            digest.update(json.dumps(data["relevant_docs"], sort_keys=True).encode())
            if data.get("top_ranked") is not None:
                digest.update(json.dumps(data["top_ranked"], sort_keys=True).encode())
    return digest.hexdigest()
