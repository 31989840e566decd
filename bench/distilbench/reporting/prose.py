"""The study's settings as a table, and as a paragraph for the method section of a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from distilbench.analysis.frame import ALPHA, BY_TYPE, OVERALL, RESAMPLES, StudyFrames, groups, row_names
from distilbench.records.record import Record
from distilbench.reporting.cells import number
from distilbench.reporting.formats.render import Table
from distilbench.reporting.notes import caution, difference_notes, smoke_mark, status_counts

SECTIONS = ("teacher", "student", "text", "budget", "train", "environment")


def settings_table(study: StudyFrames) -> Table:
    """Every setting with its value; several values are counted by runs."""
    rows = []
    for section in SECTIONS:
        values = [getattr(record, section) for record in study.records.values() if _states(record, section)]
        for key in dict.fromkeys(key for value in values for key in value):
            rows.append((section, key, _values(value[key] for value in values if key in value)))
    seeds = sorted({record.seed for record in study.records.values() if record.role == "method"})
    rows.append(("seeds", "seeds", ", ".join(map(str, seeds))))
    frame = pd.DataFrame(rows, columns=["Section", "Setting", "Value"])
    return Table("settings", f"{study.name}: settings", frame, frame, [], caution(study))


def paragraph(study: StudyFrames) -> str:
    """What a paper's method section has to say about the runs; only what the records state."""
    records = list(study.records.values())
    methods = [record for record in records if record.role == "method"]

    def one(section: str, key: str) -> str:
        stated = [getattr(record, section) for record in methods or records]
        return _values(value[key] for value in stated if key in value)

    parts = [f"This was a {smoke_mark(study)}. "] if smoke_mark(study) else []
    parts += [_models(one), _training(one), _evaluation(study), _statistics(study)]
    return "".join(parts)


Lookup = Callable[[str, str], str]


def _models(one: Lookup) -> str:
    return (
        f"The teacher is {one('teacher', 'name')} ({one('teacher', 'layers')} layers, width {one('teacher', 'width')}, "
        f"{one('teacher', 'parameters')} parameters, embeddings of width {one('teacher', 'output_width')}). "
        f"The students have {one('student', 'layers')} layers, width {one('student', 'width')}, "
        f"{one('student', 'heads')} attention heads, {one('student', 'parameters')} parameters, "
        f"{one('student', 'pooling')} pooling and embeddings of width {one('student', 'output_width')}. "
    )


def _training(one: Lookup) -> str:
    tokens, signals = one("train", "batch_tokens"), one("train", "signals")
    most = "" if tokens == "None" else f" or {tokens} padded tokens, whichever is less"
    stored = "" if signals == "float32" else f"The teacher's vectors were stored in {signals}. "
    return (
        f"Every method was given a budget of {one('budget', 'amount')} {one('budget', 'currency')} on "
        f"{one('text', 'sentences')} sentences of the text {one('text', 'source')}, with batch size "
        f"{one('train', 'batch_size')}{most}, learning rate {one('train', 'learning_rate')}, at most "
        f"{one('train', 'max_length')} tokens per sentence and precision {one('train', 'precision')}. {stored}"
    )


def _evaluation(study: StudyFrames) -> str:
    kinds = {kind: names for kind, names in groups(study.tasks).items() if kind not in (OVERALL, BY_TYPE)}
    tasks = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
    metrics = ", ".join(study.tasks["metric"].unique())
    precisions = _values(facts["precision"] for record in study.records.values() for facts in record.tasks.values())
    precision = "" if precisions in ("", "fp32") else f" in {precisions}"
    version = _values(record.environment["mteb"] for record in study.records.values())
    return (
        f"Models were evaluated{precision} with mteb {version} on {len(study.tasks)} tasks ({tasks}) by {metrics}, "
        "reported x100. "
    )


def _statistics(study: StudyFrames) -> str:
    counts = status_counts(study).loc[list(row_names(study, "method"))]
    completed, total = int(counts["completed"].sum()), int(counts.sum(axis=1).sum())
    text = (
        f"Of {total} training runs {completed} completed. Scores are means over the completed seeds, with 95 % "
        f"{_intervals(study)}"
    )
    return " ".join([text, *difference_notes(study)])


def _intervals(study: StudyFrames) -> str:
    methods = study.runs[(study.runs["role"] == "method") & (study.runs["status"] == "completed")]
    if methods.empty or methods.groupby("key").size().max() < 2:
        return (
            "intervals where a row has two or more, which no method has; differences between methods were not tested."
        )
    if study.half_widths is None:
        return "Student-t intervals over seeds; differences between methods were not tested for significance."
    return (
        "intervals over seeds (Student's t) and over the tasks' examples (bootstrap with the metric computed anew in "
        f"each of {RESAMPLES} resamples). Tasks are taken as given. Differences between methods are paired over seeds "
        "(equal batches and initial weights) and over examples. Their variance between seeds is moderated: half of its "
        "degrees of freedom are the difference's own, half those of the median row. Intervals hold together for all "
        f"pairs of rows and averages (family-wise error {ALPHA:g}, by a parametric bootstrap of the largest "
        "statistic); a difference is real where its interval excludes 0, and methods whose interval lies within "
        f"{study.margin * 100:g} points are equivalent; what is neither is undecided."
    )


def _states(record: Record, section: str) -> bool:
    """Floor and ceiling are not trained, so their training settings say nothing."""
    return record.role == "method" or section in ("teacher", "environment")


def _values(values: Iterable[Any]) -> str:
    shown = pd.Series([_shown(value) for value in values], dtype="object").value_counts(sort=False)
    if len(shown) < 2:
        return "".join(map(str, shown.index))
    return " / ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in shown.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return number(value) if isinstance(value, int) else f"{value:g}"
