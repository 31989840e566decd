"""The verdicts as tables, and what the design of a study could have found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.inference import Inference
from distilbench.analysis.rankings import FEWEST_SEEDS, leaders
from distilbench.analysis.stats import POWER, Estimate
from distilbench.analysis.verdicts import Comparison
from distilbench.reporting.cells import Cell, decimal_cell, difference_cell, p_value, study_table
from distilbench.reporting.render import Emphasis, Table

SHORT = {"better": ">", "worse": "<", "equivalent": "=", "undecided": "?"}
MORE_EXAMPLES = "no number"


def verdict_table(study: StudyFrames, inference: Inference, column: str = OVERALL) -> Table:
    """One line per pair of rows: difference, interval, tests, effect, verdict."""
    lines: list[Mapping[str, Cell]] = [
        {
            "Method": _name(study, item.one),
            "Against": _name(study, item.other),
            "Difference": difference_cell(item.difference),
            "p (Holm)": (p_value(item.p_differs), item.p_differs),
            "d": decimal_cell(item.effect),
            "P(improvement)": decimal_cell(item.improvement),
            "Detectable": decimal_cell(item.tested.detectable(item.alpha) * 100),
            "Verdict": item.verdict,
        }
        for item in inference.comparisons(column)
    ]
    notes = [
        f"Differences of {column} in points (x100), the first less the second, with 95 % intervals over seeds and "
        "examples, both paired. d: mean difference over its standard deviation between seeds. P(improvement): that a "
        "run of the first beats one of the second on a task drawn at random.",
        f"Equivalent: shown to differ by less than {study.margin * 100:g} points. Undecided: neither that nor a "
        "difference could be shown; it does not mean equal. Adjusted for all pairs by Holm's procedure.",
        *power_notes(inference, column),
    ]
    return study_table(study, "verdicts", f"which differences are real ({column})", lines, notes)


def verdict_matrix(study: StudyFrames, inference: Inference, column: str = OVERALL) -> Table:
    """Rows against rows, a sign in each cell."""
    compared = {key for item in inference.comparisons(column) for key in (item.one, item.other)}
    names = {str(key): _name(study, str(key)) for key in study.rows.index if key in compared}
    lines: list[Mapping[str, Cell]] = []
    for one in names:
        verdicts = {names[other]: inference.verdict(one, other, column) for other in names}
        signs = {name: SHORT[verdict] if verdict else "" for name, verdict in verdicts.items()}
        lines.append({"Method": names[one], **signs})
    notes = [
        "Read along a line: > better than, < worse than, = equivalent to the method of the column, ? undecided.",
        f"By {column}; family-wise error {inference.alpha:g} (Holm); equivalent means within "
        f"{study.margin * 100:g} points.",
    ]
    return study_table(study, "verdict_matrix", f"verdicts ({column})", lines, notes)


def power_table(study: StudyFrames, inference: Inference, delta: float | None = None, column: str = OVERALL) -> Table:
    """One line per pair: what the design can find, and how many seeds would settle it.

    `delta` is the difference to be found, in points; unset, that which was observed.
    """
    lines: list[Mapping[str, Cell]] = []
    for item in inference.comparisons(column):
        wanted = abs(item.difference.mean) if delta is None else delta / 100
        seeds = item.tested.seeds_needed(wanted, item.alpha)
        lines.append(
            {
                "Method": _name(study, item.one),
                "Against": _name(study, item.other),
                "Difference": decimal_cell(item.difference.mean * 100),
                "Detectable": decimal_cell(item.tested.detectable(item.alpha) * 100),
                "Of the variance, seeds (%)": decimal_cell(_seed_share(item.tested) * 100, 0),
                "Seeds needed": (str(seeds), float(seeds)) if seeds else (MORE_EXAMPLES, math.inf),
                "Verdict": item.verdict,
            }
        )
    what = "the observed difference" if delta is None else f"a difference of {delta:g} points"
    notes = [
        f"Detectable: the true difference in points that this design finds with probability {POWER:g}. Seeds needed to "
        f"find {what} so often; '{MORE_EXAMPLES}': the examples' share of the error is too large for any.",
        *power_notes(inference, column),
    ]
    return study_table(study, "power", f"what this design can find ({column})", lines, notes)


def power_notes(inference: Inference, column: str = OVERALL) -> list[str]:
    """The power of the design in a sentence; nothing where there are no comparisons."""
    items = inference.comparisons(column)
    detectable = [value for item in items if math.isfinite(value := item.tested.detectable(item.alpha) * 100)]
    if not items:
        return []
    if not detectable:
        return ["With one seed no difference between two methods can be shown; run more."]
    undecided = [item for item in items if item.verdict == "undecided"]
    sentence = (
        f"Power: with this design a true difference of {median(detectable):.2f} points of {column} between two rows "
        f"(median over {len(detectable)} pairs; {min(detectable):.2f} to {max(detectable):.2f}) is found with "
        f"probability {POWER:g}."
    )
    return [sentence, *([_settling(undecided)] if undecided else [])]


def _settling(undecided: list[Comparison]) -> str:
    seeds = [item.tested.seeds_needed(item.tested.mean, item.alpha) for item in undecided]
    reachable = [count for count in seeds if count is not None]
    parts = []
    if reachable:
        parts.append(f"{len(reachable)} would be settled by {min(reachable)} to {max(reachable)} seeds")
    if len(reachable) < len(seeds):
        parts.append(f"{len(seeds) - len(reachable)} only by more examples")
    return (
        f"Of {len(undecided)} undecided pairs, if their true difference is the observed one, {' and '.join(parts)}; "
        "distilbench power lists them."
    )


def emphasis(table: Table, study: StudyFrames, inference: Inference, columns: dict[str, str]) -> Table:
    """The table with best and second marked, in the columns whose heading -> column of scores is given."""
    keys = list(map(str, study.rows.index))
    marks: dict[tuple[int, str], Emphasis] = {
        (keys.index(key), heading): mark
        for heading, column in columns.items()
        for key, mark in leaders(inference, column).items()
    }
    few = all(item.difference.seeds < FEWEST_SEEDS for item in inference.comparisons())
    unmarked = f"that takes {FEWEST_SEEDS} seeds" if few else "none is shown to be better than all others"
    note = (
        "Best and second are marked only where the verdicts say that they are better than all methods behind them."
        if marks
        else f"No method is marked as best: {unmarked}."
    )
    return replace(table, notes=[*table.notes, note], emphasis=marks)


def _name(study: StudyFrames, key: str) -> str:
    return str(study.rows.at[key, "row"])


def _seed_share(difference: Estimate) -> float:
    total = difference.seed_variance + difference.example_variance
    return difference.seed_variance / total if total else 0.0
