"""The reproduction ledger: a study's order and gaps beside those of the papers, with what differs and the outcome."""

from __future__ import annotations

from collections.abc import Mapping

from distilbench.analysis.frame import StudyFrames
from distilbench.records.published import load_published
from distilbench.reporting.cells import DASH, Cell, decimal_cell, decimals, plus_minus, study_table
from distilbench.reporting.formats.render import Table
from distilbench.reporting.reproduction.protocol import differences, other_sets
from distilbench.reporting.reproduction.published_order import (
    REFERENCE,
    MatchedRow,
    PublishedComparison,
    Verdicts,
    compare,
)


def reproduction_tables(study: StudyFrames, verdicts: Verdicts | None = None) -> list[Table]:
    """A summary, then for every paper's table that shares two methods with the study the scores, and pairs if any.

    `verdicts` has row keys of `study.rows`: the first is 'better', 'worse', 'equivalent' or 'undecided' against the
    second on the tasks that study and papers share; pairs that it lacks are undecided. Without it the sign of the mean
    difference decides. Empty when no table shares two methods.
    """
    papers = [table.with_own_sets(study.tasks.index) for table in load_published() if table.kind == "paper"]
    comparisons = [compared for table in papers if (compared := compare(table, study, verdicts))]
    tables = [_summary(study, comparisons, verdicts is not None)] if comparisons else []
    for compared in comparisons:
        tables.append(_scores(study, compared))
        tables += [_pairs(study, compared, verdicts is not None)] if compared.pairs else []
    return tables


def _summary(study: StudyFrames, comparisons: list[PublishedComparison], tested: bool) -> Table:
    lines: list[Mapping[str, Cell]] = [
        {
            "Published table": one.table.title,
            "Shared methods": _count_cell(len({line.row.method for line in one.lines})),
            "Shared tasks": _count_cell(len(one.tasks)),
            "Pairs": _count_cell(len(one.pairs)),
            "Agree": _count_cell(one.count("agrees")),
            "Disagree": _count_cell(one.count("disagrees")),
            "Undecided": _count_cell(one.count("undecided")),
            "Outcome": one.outcome,
        }
        for one in comparisons
    ]
    notes = [
        "Reproduced: every pair of shared methods has the published order here; partly: some pairs; not: none. This "
        "speaks of order, not of scores: the protocols differ as listed below each table.",
        _ground(study, tested),
    ]
    return study_table(study, "reproduction", "order of methods beside published tables", lines, notes)


def _count_cell(count: int) -> Cell:
    return str(count), float(count)


def _scores(study: StudyFrames, compared: PublishedComparison) -> Table:
    shares_some = compared.tasks not in ([], compared.common)
    lines = [_line(line, compared, shares_some) for line in compared.lines]
    caption = f"beside {compared.table.title}: {compared.outcome}"
    keys = {line.key for line in compared.lines}
    notes = [*_reading(compared), *differences(compared.table, study, keys), *compared.table.caveats]
    return study_table(study, f"reproduction_{compared.table.id}", caption, lines, notes)


def _line(line: MatchedRow, compared: PublishedComparison, shares_some: bool) -> Mapping[str, Cell]:
    there, here = _gap(line, compared)
    count = len(compared.common)
    shared = {"Published, shared tasks": decimal_cell(line.there)} if shares_some else {}
    return {
        "Method": line.name,
        "Published as": line.row.label,
        f"Published, {count} task{'s' if count != 1 else ''}": decimal_cell(line.published),
        **shared,
        "Here, shared tasks": (plus_minus(line.here, line.half_width), line.here),
        "n": (str(line.runs or DASH), float(line.runs)),
        "Published gap": decimal_cell(there),
        "Gap here": decimal_cell(here),
    }


def _pairs(study: StudyFrames, compared: PublishedComparison, tested: bool) -> Table:
    several = len({pair.first.row.student for pair in compared.pairs}) > 1
    lines: list[Mapping[str, Cell]] = [
        {
            "Pair": f"{pair.first.row.method} - {pair.second.row.method}",
            **({"Encoder there": pair.first.row.student} if several else {}),
            "Published difference": (decimals(pair.there, signed=True), pair.there),
            "Difference here": (decimals(pair.here, signed=True), pair.here),
            **({"Verdict here": str(pair.verdict)} if tested else {}),
            "Order": pair.order,
        }
        for pair in compared.pairs
    ]
    notes = [_ground(study, tested), *_other_sets(study, compared)]
    table = compared.table
    return study_table(study, f"reproduction_{table.id}_pairs", f"pairs of {table.title}", lines, notes)


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
        f"Gaps are to {_reference(compared.lines[0], compared).row.method}"
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
