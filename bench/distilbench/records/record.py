"""What a finished run leaves in `results/<study>/<run_id>/`, written whole or not at all, and how it is read back.

    record.json        the fields of `Record`; small, readable, versioned by `schema`
    curve.parquet      one row per logged step: step, sentences, tokens, flops, seconds, progress, lr, grad_norm,
                       loss, term_<name>..., <diagnostic>...
    examples.parquet   one row per pair, query, text with summaries, or repeated experiment of a classifier or a
                       clustering: task, split, example, gold, similarity (pairs), measure (pairs that belong together
                       or not), ndcg_at_10, recall_at_10, ... (queries), or the main metric; slices, the names of those
                       that it is in (distilbench.evaluation.slices), with spaces between
    ranked.parquet     of retrieval tasks, the 100 best documents of each query: task, split, query_id, doc_id,
                       score (the cosine), rank (from 1)
    judged.parquet     of retrieval tasks, what is relevant: task, split, query_id, doc_id, relevance
                       Of a task with subsets, split, example, query_id and doc_id begin with the subset: en-en/0
    mteb/<Task>.json   the task's result in mteb's own format
    SHA256SUMS         of these files: a record that was changed afterwards is refused

A copy may lack `ranked.parquet` and `judged.parquet`, the larger part: they are for a look at what was found.

Readers of results import this module only; it imports neither torch nor mteb.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.sealed import SUMS_FILE, damage, listed, undisturbed
from distilbench.core.stored_json import check_parts, check_shape, read_object
from distilbench.records.schema import MAIN, RecordShape, Role, Status

SCHEMA = 1
RECORD_FILE = "record.json"
CURVE_FILE = "curve.parquet"
EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE = "examples.parquet", "ranked.parquet", "judged.parquet"
LISTS = (RANKED_FILE, JUDGED_FILE)
LEFT = (RECORD_FILE, SUMS_FILE, CURVE_FILE, EXAMPLES_FILE)
"""What a folder is known by as a run's."""
SLICES = "slices"
"""Column of examples.parquet."""
MTEB_FOLDER = "mteb"
SOURCE_FILE = "SOURCE.json"
"""Of a folder of a mirror: where its files are from, and under which licence."""

ROLE_ORDER: dict[Role, int] = {"ceiling": 0, "method": 1, "reference": 2, "floor": 3}
"""Of rows in tables."""
CURE = "delete its folder and run the study again"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of every table. Sizes are counts, times seconds, memory bytes, scores in the metric's own unit."""

    run_id: str
    study: str
    role: Role
    """`floor`: the student before training; `ceiling`: the teacher; else a trained student."""
    label: str
    """Row name in the study, unique together with the seed."""
    method: str
    hyperparameters: dict[str, Any]
    status: Status
    seed: int
    teacher: dict[str, Any]
    """name, layers, width, heads, output_width, parameters, sha256."""
    student: dict[str, Any]
    """layers, width, heads, output_width, parameters, pooling."""
    text: dict[str, Any]
    """source, sentences, sha256."""
    train: dict[str, Any]
    """Settings that all methods of the study share: batch_size, learning_rate, ..."""
    budget: dict[str, Any]
    """currency, amount."""
    ledger: dict[str, Any]
    """What was spent, in every currency: see distilbench.study.budget."""
    tasks: dict[str, dict[str, Any]]
    """task -> type, main_metric, examples, data_sha256, precision, key (hash of all that the score depends on)."""
    scores: dict[str, dict[str, float]]
    """task -> metric -> value; `main_score` is the metric that mteb ranks by."""
    identity: dict[str, str]
    """name -> hash of what the run was computed from; `start`, `batches` and `weights` are what training began with,
    what it read and what it gave."""
    environment: dict[str, Any]
    error: str | None = None
    response: list[dict[str, Any]] = field(default_factory=list)
    """Over training: share of the budget, what was spent in every currency, the dev score, `chosen`, and the place on
    the information plane (distilbench.training.dev.information_plane)."""
    contamination: dict[str, Any] = field(default_factory=dict)
    """Training text that was evaluation text: `looked_at`, and left out because `equal` or for a `phrase`; and
    `pairs_seen`, task -> test pairs in the labelled text, which are left in. Empty where nobody looked."""
    vectors: dict[str, Any] = field(default_factory=dict)
    """What the vectors of fixed sentences are like: `sentences`, `values`, and `layers`, student's by teacher's
    (distilbench.evaluation.vectors.representation); and, where both are as wide, `asymmetric`: retrieval task ->
    main score of the student's queries among the teacher's documents, in the task's precision. Empty where nobody
    looked."""
    speed: dict[str, float] = field(default_factory=dict)
    """bytes on disk, parameters of what ships, sentences_per_second, query_ms; on the machine of `environment`."""
    limit: int | None = None
    """Set when `--limit` shortened text and tasks: such rows are smoke tests, not results."""
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        """Raise `ValueError` for a record that claims success without finite scores."""
        if self.status == "completed" and (task := _task_without_score(self.scores)):
            raise ValueError(f"run {self.run_id} is completed but its score of {task} is not a number")


def _task_without_score(scores: Any) -> str | None:
    """The first task of which the main score is not finite; whether the scores are any is for others to say."""
    values = scores if isinstance(scores, dict) else {}
    main = {task: metrics.get(MAIN) for task, metrics in values.items() if isinstance(metrics, dict)}
    return next((task for task, score in main.items() if isinstance(score, float) and not math.isfinite(score)), None)


def dump_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON with sorted keys; NaN and infinities are refused."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def to_dict(record: Record) -> dict[str, Any]:
    """The record as plain JSON types."""
    return asdict(record)


def read_record(path: Path) -> Record:
    """Read one `record.json`; one that claims success without finite scores is that of a run that diverged.

    Raises `UserError` when it is damaged or of another schema, naming the key that is to blame.
    """
    try:
        values = read_object(path, nan=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a record: {error}; {CURE}") from None
    if values.get("schema") != SCHEMA:
        raise UserError(f"{path} is not a record of schema {SCHEMA}; make it again with this version of distilbench")
    if values.get("status") == "completed" and (task := _task_without_score(values.get("scores"))):
        values |= {"status": "diverged", "error": f"its score of {task} is not a number", "scores": {}, "tasks": {}}
    try:
        check_parts(values)
        check_shape(RecordShape, values)
        return Record(**values)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {CURE}") from None


def record_damage(folder: Path) -> str | None:
    """What is wrong with a record's folder, in a few words, or None."""
    return damage(folder, may_lack=LISTS, line_ends=True)


def run_folders(study: Path) -> list[Path]:
    """The folders in a study's that hold anything of what a run leaves."""
    # A leading dot marks a folder that is still being written.
    return listed(study, lambda: sorted({path.parent for name in LEFT for path in study.glob(f"[!.]*/{name}")}))


def read_study(folder: Path) -> list[Record]:
    """All records of one study's folder, ordered by role, label and seed. Empty when there are none.

    Raises `UserError` for a record of which a byte has changed since it was written, that lies in another's place, or
    that has gone from among the run's other files.
    """
    records = [undisturbed(run, partial(_read_run, run)) for run in run_folders(folder)]
    return sorted(records, key=lambda record: (ROLE_ORDER[record.role], record.label, record.seed))


def read_run(folder: Path) -> Record:
    """The record of one run's folder, `results/<study>/<run_id>`.

    Raises `UserError` for another folder, and for a record that is not as it was written.
    """

    def read() -> Record:
        if not (folder / RECORD_FILE).is_file():
            raise UserError(f"{folder} is no run's folder; give results/<study>/<run_id>")
        if found := record_damage(folder):
            raise UserError(f"the record {folder} is damaged: {found}; run the study again")
        return read_record(folder / RECORD_FILE)

    return undisturbed(folder, read)


def _read_run(run: Path) -> Record:
    path = run / RECORD_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing, of a run that has left other files; {CURE}")
    if damaged := record_damage(run):
        raise UserError(f"the record {run} is damaged: {damaged}; delete it and run the study again")
    record = read_record(path)
    if record.run_id != run.name:
        raise UserError(f"{run} holds the record of run {record.run_id}; put it back, or delete it")
    return record
