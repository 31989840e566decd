"""How often the gate is wrong: candidates simulated from the real runs of a study.

    python -m tests.reliability.gate results/gate --candidates 200

Every candidate is a random half of the seeds, held against a baseline of the other half, on the same examples. Kinds:
the same code (A/A); and similarities disturbed by noise of its own for each run, of a size tuned until the mean over
all seeds has dropped by 1.0, and by 0.3 points on the average of the tasks. The drop hits all rows, or only one, or
only one slice of the examples in all rows, there by 10 points. "Two in a row": a candidate is held against the same
baseline twice, on halves of its seeds, and its regressions counted as --confirm does. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distilbench.gate.baseline import Scores, scores_of
from distilbench.gate.check import CheckLine, CheckResult, confirmed, judge, overall
from distilbench.gate.judging.columns import ResampledRuns
from distilbench.records.record import SLICES

MARGIN, ALPHA, RESAMPLES = 0.005, 0.05, 200
DROPS, SLICE_DROP = (0.01, 0.003), 0.1
SLICE = "negation"


def with_drop(scores: Scores, drop: float, rows: list[str], only: str | None = None) -> Scores:
    """The same runs, those of `rows` disturbed so that their mean over seeds and tasks has fallen by `drop`.

    `only`: a slice; its examples alone are disturbed, and its own mean falls by `drop`.
    """
    examples = scores.examples
    hit = scores.runs.index[scores.runs["label"].isin(rows)]
    disturbed = examples["run"].isin(hit)
    if only is not None:
        disturbed &= examples[SLICES].str.split().map(lambda names: only in names)
    noise = pd.Series(np.random.default_rng(11).normal(size=len(examples)), index=examples.index)
    noise *= examples.groupby(["run", "task"], sort=True)["value"].transform("std") * disturbed
    part = examples[disturbed]
    before, low, high = spearman(part).to_numpy().mean(), 0.0, 10.0
    for _ in range(15):
        middle = (low + high) / 2
        fallen = before - spearman(part.assign(value=part["value"] + middle * noise)).to_numpy().mean()
        low, high = (low, middle) if fallen > drop else (middle, high)
    worse = examples.assign(value=examples["value"] + high * noise)
    return replace(scores, examples=worse, scores=spearman(worse).loc[scores.scores.index, list(scores.tasks)])


def spearman(examples: pd.DataFrame) -> pd.DataFrame:
    """Runs x tasks, from the ranks of values and of gold."""
    keys = [examples["run"], examples["task"]]
    ranks = (examples[column].groupby(keys).rank() for column in ("value", "gold"))
    one, other = (part - part.groupby(keys).transform("mean") for part in ranks)
    products = [(a * b).groupby(keys).sum() for a, b in ((one, other), (one, one), (other, other))]
    return (products[0] / np.sqrt(products[1] * products[2])).unstack("task")


def checks(compared: ResampledRuns, count: int, seeds: list[int], parts: int) -> Iterator[list[list[CheckLine]]]:
    """For each simulated candidate, the lines of `parts` checks against one baseline, on seeds of their own."""
    runs, rng = compared.runs, np.random.default_rng(3)
    labels = sorted(set(runs["label"]))
    for _ in range(count):
        order = rng.permutation(seeds)
        old, rest = order[: len(seeds) // 2], order[len(seeds) // 2 :]
        found = []
        for new in np.array_split(rest, parts):
            chosen = ((runs["side"] == "old") & runs["seed"].isin(old)) | (
                (runs["side"] == "new") & runs["seed"].isin(new)
            )
            compared.runs = runs[chosen]
            found.append(judge(list(compared.lines(labels)), MARGIN, ALPHA))
        yield found
    compared.runs = runs


def counted(compared: ResampledRuns, count: int, seeds: list[int]) -> dict[str, Any]:
    verdicts: Counter[str] = Counter()
    deciding: Counter[str] = Counter()
    sliced: dict[str, Counter[str]] = defaultdict(Counter)
    detectable = []
    for (lines,) in checks(compared, count, seeds, 1):
        verdicts[overall(lines)] += 1
        decide = [line for line in lines if line.decides and line.column == "STS average"]
        deciding.update(line.verdict for line in decide)
        for line in lines:
            if line.examples:
                sliced[line.column][line.verdict] += 1
        detectable += [100 * line.detectable for line in decide if line.detectable is not None]
    return {
        "verdicts": dict(verdicts),
        "rows_on_the_average": dict(deciding),
        "rows_on_slices": {column: dict(found) for column, found in sliced.items()},
        "median_detectable_points": round(float(np.median(detectable)), 2),
    }


def in_a_row(compared: ResampledRuns, count: int, seeds: list[int]) -> dict[str, int]:
    """Candidates whose seeds are checked in two halves, against one baseline, the second to confirm the first."""
    said: Counter[str] = Counter()
    for found in checks(compared, count, seeds, 2):
        first, second = (CheckResult(overall(lines), lines, MARGIN, ALPHA, []) for lines in found)
        halves = [outcome.verdict == "regressed" for outcome in (first, second)]
        said.update(first=halves[0], either=any(halves), both=all(halves))
        said.update(confirmed=confirmed(first, second).verdict == "regressed")
    return dict(said)


def _sts_of(scores: Scores) -> Scores:
    """Only what can be disturbed example by example."""
    tasks = {task: facts for task, facts in scores.tasks.items() if facts["type"] == "STS"}
    examples = scores.examples[scores.examples["task"].isin(list(tasks))]
    return replace(scores, tasks=tasks, scores=scores.scores[list(tasks)], examples=examples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a study of four seeds or more; only its STS tasks are used")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--seeds", type=int, help="use only the seeds up to this one")
    arguments = parser.parse_args()
    clean = _sts_of(scores_of(arguments.results.resolve()))
    labels = sorted(set(clean.runs["label"]))
    seeds = sorted(seed for seed in set(clean.runs["seed"]) if seed <= (arguments.seeds or seed))
    count = arguments.candidates
    kinds: dict[str, tuple[Any, ...]] = {"same_code": (0.0, [])}
    kinds |= {f"drop_{100 * drop:g}_all_rows": (drop, labels) for drop in DROPS}
    kinds[f"drop_{100 * SLICE_DROP:g}_only_{SLICE}"] = (SLICE_DROP, labels, SLICE)
    kinds |= {f"drop_{100 * DROPS[0]:g}_only_{label}": (DROPS[0], [label]) for label in labels}
    outcome: dict[str, Any] = {
        "candidates": count,
        "rows": labels,
        "tasks": list(clean.tasks),
        "seeds_of_each_side": len(seeds) // 2,
        "margin_points": 100 * MARGIN,
        "alpha": ALPHA,
    }
    for name, (drop, rows, *only) in kinds.items():
        candidates = with_drop(clean, drop, rows, *only) if rows else clean
        fallen = clean.scores.to_numpy().mean() - candidates.scores.to_numpy().mean()
        compared = ResampledRuns(candidates, clean, list(clean.tasks), RESAMPLES)
        outcome[name] = {
            "mean_drop_points": round(100 * float(fallen), 3),
            **counted(compared, count, seeds),
            "two_in_a_row": in_a_row(compared, count, seeds),
        }
        sys.stderr.write(f"{name}: {outcome[name]}\n")
    sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
