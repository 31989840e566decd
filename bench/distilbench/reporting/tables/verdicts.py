"""The verdicts as tables, and what the design of a study could have found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import numpy as np

from distilbench.analysis.frame import ALPHA, BY_TYPE, OVERALL, StudyFrames, diverged_runs
from distilbench.analysis.inference import Inference
from distilbench.analysis.rankings import FEWEST_SEEDS, leaders
from distilbench.analysis.stats import POWER, Estimate, half_width
from distilbench.analysis.verdicts import Comparison
from distilbench.reporting.cells import DASH, Cell, decimal_cell, decimals, difference_cell, p_value, study_table
from distilbench.reporting.formats.render import Emphasis, Table

SHORT = {"better": ">", "worse": "<", "equivalent": "=", "undecided": "?"}
MORE_EXAMPLES = "no number"
NOT_ALIKE: Cell = (DASH, math.inf)


def verdict_table(study: StudyFrames, inference: Inference, column: str = OVERALL) -> Table:
    """One line per pair of rows: difference, interval, tests, effect, verdict."""
    lines: list[Mapping[str, Cell]] = [
        {
            "Method": _name(study, item.one),
            "Against": _name(study, item.other),
            "Difference": difference_cell(item.difference, item.alpha),
            "p (adjusted)": (p_value(item.p_differs), item.p_differs),
            "d": decimal_cell(item.effect),
            "P(improvement)": decimal_cell(item.improvement),
            **_by_task(inference, item),
            "Detectable": decimal_cell(item.difference.detectable(item.alpha) * 100),
            "Verdict": item.verdict,
        }
        for item in inference.comparisons(column)
    ]
    notes = [
        f"Differences of {column} in points (x100), the first less the second, over seeds and examples, both paired, "
        f"with intervals that hold together for all pairs and averages with {1 - ALPHA:.0%} confidence. "
        f"Better, worse: the interval lies on one side of 0. Equivalent: within {study.margin * 100:g} points. "
        "Undecided: neither could be shown; it does not mean equal.",
        "p: adjusted for all pairs and averages. d: difference over the standard deviation of a difference between "
        "seeds. P(improvement): that a run of the first beats one of the second on a task drawn at random.",
        *_task_notes(inference),
        *_divergence_notes(study, inference, column),
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
        f"By {column}; family-wise error {ALPHA:g} over all pairs and averages; equivalent means within "
        f"{study.margin * 100:g} points.",
    ]
    return study_table(study, "verdict_matrix", f"verdicts ({column})", lines, notes)


def power_table(study: StudyFrames, inference: Inference, delta: float | None = None, column: str = OVERALL) -> Table:
    """One line per pair: what the design can find, and how many seeds would settle it.

    `delta` is the difference to be found, in points; unset, that which was observed.
    """
    lines: list[Mapping[str, Cell]] = []
    for item in inference.comparisons(column):
        true = abs(item.difference.mean) if delta is None else delta / 100
        seeds = item.difference.seeds_needed(true, item.alpha)
        lines.append(
            {
                "Method": _name(study, item.one),
                "Against": _name(study, item.other),
                "Difference": decimal_cell(item.difference.mean * 100),
                "Detectable": decimal_cell(item.difference.detectable(item.alpha) * 100),
                "Of the variance, seeds (%)": decimal_cell(_seed_share(item.difference) * 100, 0),
                "Seeds needed": _seeds_cell(seeds),
                "To be equivalent": _seeds_cell(_seeds_to_equivalence(item, true, study.margin))
                if true < study.margin
                else NOT_ALIKE,
                "Verdict": item.verdict,
            }
        )
    what = "the observed difference" if delta is None else f"a difference of {delta:g} points"
    notes = [
        f"Detectable: the true difference in points that this design finds with probability {POWER:g}. Seeds needed to "
        f"find {what} so often; '{MORE_EXAMPLES}': the examples' share of the error is too large for any. To be "
        f"equivalent: seeds with which a pair that differs by that much, less than the margin of "
        f"{study.margin * 100:g} points, is so often shown to be equivalent.",
        *power_notes(inference, column),
    ]
    return study_table(study, "power", f"what this design can find ({column})", lines, notes)


def power_notes(inference: Inference, column: str = OVERALL) -> list[str]:
    """The power of the design in a sentence; nothing where there are no comparisons."""
    items = inference.comparisons(column)
    detectable = [value for item in items if math.isfinite(value := item.difference.detectable(item.alpha) * 100)]
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
    return [sentence, *([_settling(undecided, inference.study.margin)] if undecided else [])]


def _seeds_cell(seeds: int | None) -> Cell:
    return (str(seeds), float(seeds)) if seeds else (MORE_EXAMPLES, math.inf)


def _settling(undecided: list[Comparison], margin: float) -> str:
    seeds = [seeds_to_settle(item, margin) for item in undecided]
    reachable = [count for count in seeds if count is not None]
    parts = []
    unknown = sum(math.isnan(item.difference.error) for item in undecided)
    if reachable:
        parts.append(f"{len(reachable)} would be settled by {min(reachable)} to {max(reachable)} seeds")
    if unknown:
        parts.append(f"{unknown} need a second seed before anything can be said")
    if unknown + len(reachable) < len(seeds):
        parts.append(f"{len(seeds) - len(reachable) - unknown} only by more examples")
    return (
        f"Of {len(undecided)} undecided pairs, if their true difference is the observed one, {' and '.join(parts)}; "
        "distilbench power lists them."
    )


def seeds_to_settle(item: Comparison, margin: float) -> int | None:
    """Seeds with which an undecided pair would be told apart or be equivalent, if it differs by what was observed.

    None where no number of seeds does it, or one seed leaves the error unknown.
    """
    apart = item.difference.seeds_needed(item.difference.mean, item.alpha)
    alike = _seeds_to_equivalence(item, abs(item.difference.mean), margin)
    return min((seeds for seeds in (apart, alike) if seeds is not None), default=None)


def _seeds_to_equivalence(item: Comparison, difference: float, margin: float) -> int | None:
    """Seeds with which an interval lies within the margin with probability `POWER`: at each end it may miss half as
    often as that allows."""
    if difference >= margin:
        return None
    return item.difference.seeds_needed(margin - difference, item.alpha, (1 + POWER) / 2)


def _by_task(inference: Inference, item: Comparison) -> dict[str, Cell]:
    """On how many tasks each of the two is better, and the interval of a difference over tasks drawn at random."""
    tasks = list(inference.scores)
    found = [known for task in tasks if (known := inference.comparison(item.one, item.other, str(task)))]
    if len(found) < 2:
        return {}
    verdicts = [known.verdict for known in found]
    ahead, behind = verdicts.count("better"), verdicts.count("worse")
    differences = np.array([known.difference.mean for known in found])[:, None] * 100
    low, high = differences.mean() - half_width(differences)[0], differences.mean() + half_width(differences)[0]
    return {
        "Tasks ahead": (f"{ahead} : {behind} of {len(found)}", ahead - behind),
        "Tasks as random": (f"{decimals(low)} to {decimals(high)}", low),
    }


def _task_notes(inference: Inference) -> list[str]:
    if len(list(inference.scores)) < 2:
        return []
    return [
        "Tasks ahead: on how many tasks the first is better, and the second; these verdicts are a family of their own, "
        "of all pairs and single tasks, with the same error. Tasks as random: Student's interval of the mean "
        "difference if the tasks were drawn from many alike; it stands alone, without seeds, examples or adjustment."
    ]


def _divergence_notes(study: StudyFrames, inference: Inference, column: str) -> list[str]:
    lost = diverged_runs(study)
    if not lost or not inference.comparisons(column):
        return []
    named = ", ".join(f"{_name(study, key)} ({runs})" for key, runs in lost.items())
    return [f"Runs diverged: {named}. Who lost more runs than another is neither better than it nor equivalent."]


def weighting_notes(study: StudyFrames, inference: Inference) -> list[str]:
    """Whether the row with the highest mean depends on how tasks are weighted; nothing where there is one mean."""
    methods = [str(key) for key in study.rows.index[study.rows["role"] == "method"]]
    highest = {}
    for column in (OVERALL, BY_TYPE):
        scores = {key: item.mean for key in methods if (item := inference.score(key, column)) is not None}
        if len(scores) < 2:
            return []
        highest[column] = max(scores, key=lambda key: scores[key])
    if len(set(highest.values())) == 1:
        return []
    by_tasks, by_types = (_name(study, key) for key in highest.values())
    return [f"Which method is highest depends on the weighting: {by_tasks} by {OVERALL}, {by_types} by {BY_TYPE}."]


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
