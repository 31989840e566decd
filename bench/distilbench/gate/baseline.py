"""The blessed scores that a candidate is checked against: a small JSON file, and beside it the scores of all examples.

Files, for `results/baselines/ci.json`:

    ci.json          what was scored and how, main scores of every run, provenance; meant to be read and reviewed
    ci.parquet       run, task, split, example, gold, value, slices
    ci.safetensors   for the drift stage, if it was blessed with models: vectors of the pinned texts, in half precision,
                     of one run of each row; the texts are in its header
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ConfigDict, Field, model_validator

from distilbench.core.errors import UserError, shown
from distilbench.core.escape import one_line
from distilbench.core.hashes import file_sha256
from distilbench.core.sealed import clear_up, undisturbed, write_together
from distilbench.core.stored_json import Stored, check_shape, check_sum, parsed, read_object, summed
from distilbench.evaluation.collapse import CollapseError
from distilbench.records.example_texts import TEXTS_FILE, read_example_texts
from distilbench.records.frames import MEASURE, read_examples
from distilbench.records.record import RECORD_FILE, Record, dump_json, read_study

BESIDE = (".parquet", ".safetensors")
SCHEMA = 1
PROTOCOL_OF_TASK = ("data_sha256", "main_metric", "type", "precision")
TEXTS = "texts"
NOT_FINITE = "the loss was not finite"
EXAMPLE_COLUMNS = ["run", "task", "split", "example", "gold", "value", "slices"]
PROVENANCE = ("teacher", "student", "text", "train", "budget")


class _BlessedTask(Stored):
    model_config = ConfigDict(extra="forbid")

    data_sha256: str
    main_metric: str
    type: str
    precision: str


class _BlessedRun(Stored):
    label: str
    seed: int
    batches: str | None
    weights: str | None
    scores: dict[str, float]


class _BlessedChange(Stored):
    time: str
    commit: str | None
    candidate: str
    verdict: str
    why: str
    scores: dict[str, dict[str, list[float | None]]]


class _BaselineShape(Stored):
    """What `ci.json` must hold."""

    mteb: str
    limit: int | None
    tasks: dict[str, _BlessedTask] = Field(min_length=1)
    runs: dict[str, _BlessedRun] = Field(min_length=1)
    provenance: dict[str, dict[str, Any]]
    history: list[_BlessedChange] = Field(default_factory=list)
    examples_sha256: str
    vectors_sha256: str | None

    @model_validator(mode="after")
    def _scored(self) -> Self:
        for name, run in self.runs.items():
            if run.scores.keys() != self.tasks.keys():
                raise ValueError(f"runs.{name}.scores are not of the tasks that it names")
        return self


@dataclass(frozen=True)
class LostRun:
    """A run of a study that has no scores."""

    label: str
    seed: int
    diverged: bool
    why: str


@dataclass(frozen=True)
class Scores:
    """The scored runs of a candidate or a baseline."""

    runs: pd.DataFrame
    """label, seed, batches, weights (their hash); a line for each run."""
    scores: pd.DataFrame
    """Runs x tasks: main score."""
    examples: pd.DataFrame
    """run, task, split, example, gold, value, slices: names with spaces between."""
    tasks: dict[str, dict[str, Any]]
    """Task -> data_sha256, main_metric, type, precision."""
    mteb: str
    limit: int | None
    provenance: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    """The pinned texts of the drift stage."""
    vectors: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)
    """Run -> vectors of these texts, [N, W]."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of a baseline: what it was changed by; see `distilbench.gate.history`."""
    example_texts: pd.DataFrame | None = None
    """Of a candidate: which texts its examples are made of; see `distilbench.records.example_texts`."""
    lost: list[LostRun] = field(default_factory=list)
    """Runs of a candidate beside those that were scored."""


def scores_to_bless(folder: Path) -> Scores:
    """As `scores_of`. Raises `UserError` for runs without scores, too."""
    scores = scores_of(folder)
    if scores.lost:
        lost = ", ".join(f"{run.label} seed {run.seed} ({run.why})" for run in scores.lost)
        raise UserError(f"{folder}: {lost}; only completed runs can become a baseline")
    return scores


def scores_of(folder: Path) -> Scores:
    """What a study's folder, or a run's, holds.

    Raises `UserError` for folders without records, for damaged ones, and for runs of different mteb versions or data.
    """
    records, parent = _records(folder)
    of_methods = [record for record in records if record.role == "method"] or records
    kept = [record for record in of_methods if record.status == "completed"]
    runs = pd.DataFrame(
        [
            {"label": record.label, "seed": record.seed}
            | {name: record.identity.get(name) for name in ("batches", "weights")}
            for record in kept
        ],
        index=[record.run_id for record in kept],
        columns=["label", "seed", "batches", "weights"],
    )
    first = (kept or of_methods)[0]
    main = [{task: metrics["main_score"] for task, metrics in record.scores.items()} for record in kept]
    return Scores(
        runs=runs,
        scores=pd.DataFrame(main, index=runs.index, dtype="float64"),
        examples=read_examples(kept, parent).rename(columns={"run_id": "run"}),
        tasks=_one_of_all(folder, kept),
        mteb=_only(folder, "mteb version", [record.environment["mteb"] for record in kept or of_methods]),
        limit=_only(folder, "--limit", [record.limit for record in kept or of_methods]),
        provenance={name: getattr(first, name) for name in PROVENANCE} | {"environment": first.environment},
        example_texts=read_example_texts(parent) if os.path.lexists(parent / TEXTS_FILE) else None,
        lost=_lost(of_methods),
    )


def _lost(records: Sequence[Record]) -> list[LostRun]:
    """Runs that diverged or failed, and those that others of the study's rows have and that left no record."""
    lost = [
        LostRun(record.label, record.seed, _has_diverged(record), f"{record.status}: {record.error or NOT_FINITE}")
        for record in records
        if record.status != "completed"
    ]
    there = {(record.label, record.seed) for record in records}
    every = {(label, seed) for label, _ in there for _, seed in there}
    return lost + [LostRun(label, seed, False, "left no record") for label, seed in sorted(every - there)]


def _has_diverged(record: Record) -> bool:
    """Whether it is the model that is wrong: its loss, or vectors that no score can be made from."""
    return record.status == "diverged" or (record.error or "").startswith(CollapseError.__name__)


def _records(folder: Path) -> tuple[list[Record], Path]:
    if (folder / RECORD_FILE).is_file():
        return [record for record in read_study(folder.parent) if record.run_id == folder.name], folder.parent
    records = read_study(folder) if folder.is_dir() else []
    if not records:
        raise UserError(f"{folder} holds no records; give a study's folder, or a run's")
    return records, folder


def _one_of_all(folder: Path, records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = {}
    for record in records:
        for task, facts in record.tasks.items():
            own = {name: facts[name] for name in PROTOCOL_OF_TASK}
            if tasks.setdefault(task, own) != own:
                raise UserError(
                    f"{folder}: its runs were scored on different data of {task}, or in different precisions; run the "
                    "study again"
                )
    return tasks


def _only(folder: Path, what: str, values: Sequence[Any]) -> Any:
    if len(set(values)) > 1:
        raise UserError(f"{folder}: its runs differ in {what} ({', '.join(map(str, set(values)))}); run it again")
    return values[0]


def bless(candidate: Scores, path: Path) -> None:
    """Write a candidate as the baseline: all of its files, or what `read_baseline` refuses.

    Raises `UserError` for scores, or vectors, that are no numbers, and for a name that would take its tables' place.
    """
    if candidate.scores.isna().to_numpy().any() or not np.isfinite(candidate.scores.to_numpy()).all():
        raise UserError("some scores of the candidate are missing or no numbers; it cannot become a baseline")
    if path.suffix in BESIDE:
        raise UserError(f"{path} is named like the tables beside a baseline; give a name that ends in .json")
    clear_up(path)
    write_together(path, lambda folder: _write(candidate, folder / path.name))
    if not candidate.vectors:
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def _write(candidate: Scores, path: Path) -> None:
    examples = candidate.examples.sort_values(["run", "task", "split", "example"])
    examples.to_parquet(path.with_suffix(".parquet"), index=False, compression="zstd")
    vectors = path.with_suffix(".safetensors")
    if candidate.vectors:
        _write_vectors(candidate, vectors)
    runs = candidate.runs.join(candidate.scores)
    content = {
        "schema": SCHEMA,
        "mteb": candidate.mteb,
        "limit": candidate.limit,
        "tasks": candidate.tasks,
        "runs": {
            str(run): {
                "label": row["label"],
                "seed": int(row["seed"]),
                # What one run lacks and another has is not-a-number in the table.
                **{name: None if pd.isna(row[name]) else row[name] for name in ("batches", "weights")},
                "scores": {task: float(row[task]) for task in candidate.tasks},
            }
            for run, row in runs.iterrows()
        },
        "provenance": candidate.provenance,
        **({"history": candidate.history} if candidate.history else {}),
        "examples_sha256": file_sha256(path.with_suffix(".parquet")),
        "vectors_sha256": file_sha256(vectors) if candidate.vectors else None,
    }
    dump_json(summed(content), path)


def _write_vectors(candidate: Scores, path: Path) -> None:
    halves = {run: np.ascontiguousarray(vectors, dtype=np.float16) for run, vectors in candidate.vectors.items()}
    if not all(np.isfinite(vectors).all() for vectors in halves.values()):
        raise UserError("some vectors of the candidate are no numbers in half precision; it cannot become a baseline")
    # Imported where it is needed: results without models are checked without it.
    from safetensors.numpy import save_file

    save_file(halves, path, metadata={TEXTS: json.dumps(candidate.texts)})


def _read_vectors(path: Path) -> tuple[list[str], dict[str, npt.NDArray[np.floating]]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as stored:
        vectors = {run: stored.get_tensor(run) for run in stored.keys()}  # noqa: SIM118
        return list(map(str, parsed(stored.metadata()[TEXTS].encode()))), vectors


def read_baseline(path: Path) -> Scores:
    """Read what `bless` wrote.

    Raises `UserError` when it is missing, damaged, changed by hand, or of another schema.
    """
    return undisturbed(path, lambda: _read_now(path))


def _read_now(path: Path) -> Scores:
    table = path.with_suffix(".parquet")
    for file in (path, table):
        if not file.is_file():
            raise UserError(f"the baseline {file} is missing; write one with --bless and commit it")
    try:
        content = read_object(path)
        if content.get("schema") != SCHEMA:
            raise UserError(f"{path} has schema {shown(content.get('schema'))}, not {SCHEMA}; bless it again")
        check_sum(content)
        check_shape(_BaselineShape, content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no baseline: {error}; restore it or bless it again") from None
    if content["examples_sha256"] != file_sha256(table):
        raise UserError(f"{table} is not the table that {path} was written with; restore both or bless again")
    texts, vectors = _sealed_vectors(path, content["vectors_sha256"])
    runs = pd.DataFrame.from_dict(content["runs"], orient="index")
    scores = pd.DataFrame(list(runs.pop("scores")), index=runs.index, dtype="float64")
    return Scores(
        runs=runs,
        scores=scores[list(content["tasks"])],
        examples=_table(table, set(content["runs"])),
        tasks=content["tasks"],
        mteb=content["mteb"],
        limit=content["limit"],
        provenance=content["provenance"],
        texts=texts,
        vectors=vectors,
        history=content.get("history", []),
    )


def _table(path: Path, runs: set[str]) -> pd.DataFrame:
    """The scored examples. Raises `UserError` for a table of other columns, or of other runs."""
    try:
        table = pd.read_parquet(path)
        examples = table[EXAMPLE_COLUMNS].astype({"gold": "float64", "value": "float64"})
        if MEASURE in table:
            examples[MEASURE] = table[MEASURE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of examples ({one_line(str(error))}); bless it again") from None
    if not set(examples["run"]) <= runs:
        raise UserError(f"{path} holds examples of runs that are not in the baseline; bless it again")
    return examples


def _sealed_vectors(path: Path, sha256: str | None) -> tuple[list[str], dict[str, npt.NDArray[np.floating]]]:
    file = path.with_suffix(".safetensors")
    if sha256 is None:
        return [], {}
    if not file.is_file():
        raise UserError(f"the baseline's {file} is missing; restore it or bless again")
    if sha256 != file_sha256(file):
        raise UserError(f"{file} is not what {path} was written with; restore both or bless again")
    from safetensors import SafetensorError

    try:
        texts, vectors = _read_vectors(file)
        sizes = {vectors[run].shape[:1] for run in vectors if vectors[run].ndim == len("NW")}
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise UserError(f"{file} holds no vectors ({one_line(str(error))}); bless it again") from None
    if sizes - {(len(texts),)} or not vectors:
        raise UserError(f"{file} does not hold a vector for each of its texts; bless it again")
    return texts, vectors
