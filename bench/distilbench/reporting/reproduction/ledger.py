"""The reproduction ledger: a study's order and gaps beside those of the papers, with what differs and the outcome."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from distilbench.analysis.frame import StudyFrames
from distilbench.records.published import load_published
from distilbench.reporting.notes import caution
from distilbench.reporting.render import Table
from distilbench.reporting.reproduction.protocol import differences, other_sets
from distilbench.reporting.reproduction.published_order import (
    REFERENCE,
    MatchedRow,
    PublishedComparison,
    Verdicts,
    compare,
)
from distilbench.reporting.tables.scores import DASH

__all__ = ["load_published", "reproduction_tables"]

Column = tuple[str, list[str], list[float] | list[str]]
"""Heading, cells as shown, values to sort by."""


def reproduction_tables(study: StudyFrames, verdicts: Verdicts | None = None) -> list[Table]:
    """A summary, then for every paper's table that shares two methods with the study the scores, and pairs if any.

    `verdicts` has row keys of `study.rows`: the first is 'better', 'worse', 'equivalent' or 'undecided' against the
    second on the tasks that study and papers share; pairs that it lacks are undecided. Without it the sign of the mean
    difference decides. Empty when no table shares two methods.
    """
    papers = [table.with_own_sets(study.tasks.index) for table in load_published() if table.kind == "paper"]
    found = [compared for table in papers if (compared := compare(table, study, verdicts))]
    tables = [_summary(study, found, verdicts is not None)] if found else []
    for compared in found:
        tables.append(_scores(study, compared))
        tables += [_pairs(study, compared, verdicts is not None)] if compared.pairs else []
    return tables


def _summary(study: StudyFrames, found: list[PublishedComparison], tested: bool) -> Table:
    rows: list[Callable[[PublishedComparison], int]] = [
        lambda one: len({line.row.method for line in one.lines}),
        lambda one: len(one.tasks),
        lambda one: len(one.pairs),
        lambda one: one.count("agrees"),
        lambda one: one.count("disagrees"),
        lambda one: one.count("undecided"),
    ]
    headings = ("Shared methods", "Shared tasks", "Pairs", "Agree", "Disagree", "Undecided")
    columns: list[Column] = [_words("Published table", [one.table.title for one in found])]
    for heading, count in zip(headings, rows, strict=True):
        counts = [count(one) for one in found]
        columns.append((heading, list(map(str, counts)), list(map(float, counts))))
    columns.append(_words("Outcome", [one.outcome for one in found]))
    notes = [
        "Reproduced: every pair of shared methods has the published order here; partly: some pairs; not: none. This "
        "speaks of order, not of scores: the protocols differ as listed below each table.",
        _ground(study, tested),
    ]
    return _table(study, "reproduction", "order of methods beside published tables", columns, notes)


def _scores(study: StudyFrames, compared: PublishedComparison) -> Table:
    lines = compared.lines
    gaps = [_gap(line, compared) for line in lines]
    columns = [
        _words("Method", [line.name for line in lines]),
        _words("Published as", [line.row.label for line in lines]),
        _numbers(f"Published, {_count(compared.common)}", [line.published for line in lines]),
        _numbers("Published, shared tasks", [line.there for line in lines]),
        _numbers("Here, shared tasks", [line.here for line in lines], [line.half_width for line in lines]),
        ("n", [str(line.runs or DASH) for line in lines], [float(line.runs) for line in lines]),
        _numbers("Published gap", [there for there, _ in gaps]),
        _numbers("Gap here", [here for _, here in gaps]),
    ]
    if compared.tasks in ([], compared.common):
        del columns[3]
    caption = f"beside {compared.table.title}: {compared.outcome}"
    keys = {line.key for line in lines}
    notes = [*_reading(compared), *differences(compared.table, study, keys), *compared.table.caveats]
    return _table(study, f"reproduction_{compared.table.id}", caption, columns, notes)


def _pairs(study: StudyFrames, compared: PublishedComparison, tested: bool) -> Table:
    pairs = compared.pairs
    encoders = [pair.first.row.student for pair in pairs]
    columns = [
        _words("Pair", [f"{_name(pair.first)} - {_name(pair.second)}" for pair in pairs]),
        *([_words("Encoder there", encoders)] if len(set(encoders)) > 1 else []),
        _numbers("Published difference", [pair.there for pair in pairs], signed=True),
        _numbers("Difference here", [pair.here for pair in pairs], signed=True),
        *([_words("Verdict here", [str(pair.verdict) for pair in pairs])] if tested else []),
        _words("Order", [pair.order for pair in pairs]),
    ]
    notes = [_ground(study, tested), *_other_sets(study, compared)]
    return _table(study, f"reproduction_{compared.table.id}_pairs", f"pairs of {compared.table.title}", columns, notes)


def _reading(compared: PublishedComparison) -> list[str]:
    """What the table's numbers are and what follows from them."""
    table, counts = compared.table, [compared.count(order) for order in ("agrees", "disagrees", "undecided")]
    why = f"pairs that agree: {counts[0]}, disagree: {counts[1]}, undecided: {counts[2]}"
    notes = [
        f"Outcome: {compared.outcome}; {why if compared.pairs else _obstacle(compared)}.",
        f"Published in {table.source}; {table.obtained}.",
        f"Scores x100, averaged over tasks; published averages are of the cells, not as stated. Shared tasks: "
        f"{', '.join(compared.tasks) or 'none'}. ± is the half-width of the 95 % interval over seeds alone, left out "
        "where n < 2.",
        f"Gaps are to {_name(_reference(compared.lines[0], compared))}"
        + (", within one encoder of the source." if len({line.row.student for line in compared.lines}) > 1 else "."),
    ]
    sets = f"The study has sets of runs that are not comparable with each other; this is set [{compared.letters}]."
    return notes + ([sets] if compared.letters else [])


def _obstacle(compared: PublishedComparison) -> str:
    if not compared.common:
        return "the published rows have no task in common"
    if not compared.tasks:
        return f"its tasks ({compared.table.protocol.family}) were not scored here by its metric"
    return "fewer than two of the shared methods have a score on the shared tasks"


def _ground(study: StudyFrames, tested: bool) -> str:
    if tested:
        return (
            "Order by the study's verdicts, the first method against the second: an undecided pair neither agrees nor "
            "disagrees, nor does one whose verdict goes against the difference shown; equivalent methods disagree with "
            f"a published difference of more than {study.margin * 100:g} points."
        )
    return "Order by the sign of the mean difference, not tested for significance."


def _other_sets(study: StudyFrames, compared: PublishedComparison) -> list[str]:
    """How many pairs agree when the tasks of which the source scored another set are left out."""
    left_out = [task for task in other_sets(compared.table, study) if task in compared.tasks]
    rest = compare(compared.table, study, without=left_out)
    if not left_out or rest is None or not rest.pairs:
        return []
    agreeing = f"{rest.count('agrees')} of {len(rest.pairs)} pairs have the published order"
    return [f"Without {', '.join(left_out)}, another test set there, {agreeing} by the sign of the mean difference."]


def _gap(line: MatchedRow, compared: PublishedComparison) -> tuple[float, float]:
    """Published and own distance to the reference: on the shared tasks, or on all when none is shared."""
    reference = _reference(line, compared)
    there = line.there - reference.there if compared.tasks else line.published - reference.published
    return there, line.here - reference.here


def _reference(line: MatchedRow, compared: PublishedComparison) -> MatchedRow:
    group = [other for other in compared.lines if other.row.student == line.row.student]
    return next((other for other in group if other.row.method == REFERENCE), group[0])


def _name(line: MatchedRow) -> str:
    return str(line.row.method)


def _count(tasks: list[str]) -> str:
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def _words(heading: str, cells: list[str]) -> Column:
    return heading, cells, cells


def _numbers(heading: str, values: list[float], widths: list[float] | None = None, signed: bool = False) -> Column:
    shown = []
    for value, width in zip(values, widths or [math.nan] * len(values), strict=True):
        text = DASH if math.isnan(value) else f"{value:{'+' if signed else ''}.2f}"
        shown.append(text if math.isnan(width) else f"{text} ± {width:.2f}")
    return heading, shown, values


def _table(study: StudyFrames, name: str, caption: str, columns: list[Column], notes: list[str]) -> Table:
    text = pd.DataFrame({heading: cells for heading, cells, _ in columns})
    order = pd.DataFrame({heading: values for heading, _, values in columns})
    return Table(name, f"{study.name}: {caption}", text, order, notes, caution(study))
