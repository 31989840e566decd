"""How often verdicts are wrong: studies simulated from the records of a real one, judged by the same functions.

New runs of a row vary between seeds as its own runs do, jointly over the columns: parametric ones are normal mixtures
of their deviations, resampled ones are drawn from the deviations themselves. Rows vary over the choice of examples with
the covariance that was found between them. All rows have the same true score, but for a planted difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilbench.analysis import stats
from distilbench.analysis.frame import OVERALL
from distilbench.analysis.inference import Inference, judged_with, score_matrix
from distilbench.analysis.moderated import ScoreMatrix
from distilbench.analysis.rankings import FEWEST_SEEDS, largest_set
from distilbench.analysis.simultaneous import family, pairs, root
from distilbench.analysis.stats import Array
from distilbench.analysis.verdicts import Verdict, judge
from distilbench.core.errors import UserError

SIMULATIONS = 500
"""Of the largest statistic, in each simulated study: fewer than a report has, for there are many studies."""


@dataclass(frozen=True)
class Population:
    """What simulated studies are drawn from: K trained rows of a study that may be compared, on C columns."""

    columns: list[str]
    deviations: list[Array]
    """Of each row, [S, C]: its runs less its mean, without what a seed does to all rows; their sum of squares over
    S - 1 is its variance."""
    examples_KCKC: Array
    there_KSC: npt.NDArray[np.bool_]
    """Which runs the study has."""

    @classmethod
    def of(cls, inference: Inference) -> Population:
        """Of the averages of a study. Raises `UserError` where it has no two rows of two seeds."""
        keys = largest_set(inference)
        columns = judged_with(inference, OVERALL)
        matrix = score_matrix(inference, keys, columns) if keys and columns else None
        several = matrix.there_KSC.all(axis=2).sum(axis=1) > 1 if matrix else np.zeros(0, dtype=bool)
        if matrix is None or several.sum() < 2:
            raise UserError(
                f"{inference.study.name} has no two comparable methods with two completed seeds each and their "
                "examples, from which studies could be simulated; run it with seeds=5"
            )
        chosen = np.flatnonzero(several)
        return cls(
            columns,
            _deviations(matrix.values_KSC[chosen]),
            matrix.examples_KCKC[chosen][:, :, chosen],
            matrix.there_KSC[chosen],
        )


@dataclass(frozen=True)
class SimulatedDesign:
    """The studies that are simulated."""

    methods: int
    seeds: int
    like_the_study: bool = False
    """Runs that the study lacks are lacking; `methods` and `seeds` are then its own."""
    equal_variances: bool = False
    """All rows vary alike between seeds; otherwise each as one of the study's rows."""
    resampled: bool = False


@dataclass(frozen=True)
class ErrorRates:
    """Shares of the simulated studies, unless they say otherwise."""

    design: SimulatedDesign
    studies: int
    false_verdict: float
    """Any pair is called better or worse on any average, though all rows are equal."""
    false_best: float
    """Any row is marked as best or second, though all rows are equal; only with three seeds or more."""
    false_equivalence: float
    """Of pairs whose true difference is the margin: called equivalent, on any average."""
    coverage: float
    """All simultaneous intervals hold the true differences."""
    single_coverage: float
    """Of single 95 % intervals: that hold the true difference."""
    power: dict[str, float]
    """Points of a planted difference -> share of pairs with that row and of averages on which it is found."""
    wrong_direction: float
    """Of the same, at the smallest planted difference: called the wrong way round."""


@dataclass(frozen=True)
class GateDesign:
    """The checks of the gate that are simulated."""

    rows: int
    """Of the study, in each check."""
    seeds: int
    """Of the candidate."""
    baseline_seeds: int
    paired: bool
    """The candidate was trained on the baseline's seeds and batches, by other code that is as good; else it is the same
    code with fresh seeds."""


@dataclass(frozen=True)
class GateRates:
    """Shares of simulated checks."""

    design: GateDesign
    checks: int
    alpha: float
    false_alarm: float
    """Regressed, though nothing has dropped."""
    inconclusive: float
    """Likewise: neither passed nor regressed."""
    passed: float
    """Likewise: passed or improved."""
    found: dict[str, float]
    """Points that all rows have dropped by on every task -> regressed."""
    found_in_one: dict[str, float]
    """Points that one row has dropped by, the others by nothing -> regressed."""
    passed_at_margin: float
    """Passed, though one row has dropped by the margin."""


def error_rates(
    population: Population,
    design: SimulatedDesign,
    studies: int,
    margin: float,
    alpha: float,
    points: tuple[float, ...] = (0.5, 1.0, 2.0),
    seed: int = 0,
) -> ErrorRates:
    """Simulate studies without differences, and look at each again with its first row shifted."""
    tallies = [
        _tally(matrix, design, margin, alpha, points, rng)
        for matrix, rng in _studies(population, design, studies, seed)
    ]
    false, best, same, covered, single, wrong = np.mean([tally[:6] for tally in tallies], axis=0)
    power = np.mean([tally[6] for tally in tallies], axis=0)
    found = dict(zip((f"{value:g}" for value in points), map(float, power), strict=True))
    return ErrorRates(
        design, studies, float(false), float(best), float(same), float(covered), float(single), found, float(wrong)
    )


def _studies(
    population: Population, design: SimulatedDesign, count: int, seed: int
) -> Iterator[tuple[ScoreMatrix, np.random.Generator]]:
    rows, columns = len(population.deviations), len(population.columns)
    examples_root = root(population.examples_KCKC.reshape(rows * columns, -1)).reshape(rows, columns, -1)
    pooled = np.concatenate(population.deviations) * np.sqrt(1 / sum(len(part) - 1 for part in population.deviations))
    for rng in np.random.default_rng(seed).spawn(count):
        chosen = np.arange(rows) if design.like_the_study else _rows(rows, design.methods, rng)
        of_examples = examples_root @ rng.normal(size=examples_root.shape[2])
        values = np.empty((len(chosen), design.seeds, columns))
        for place, row in enumerate(chosen):
            own = population.deviations[row] / np.sqrt(max(len(population.deviations[row]) - 1, 1))
            part = pooled if design.equal_variances else own
            values[place] = _runs(part, design, rng) + of_examples[row]
        if design.like_the_study:
            values[~population.there_KSC] = np.nan
        examples = population.examples_KCKC[chosen][:, :, chosen]
        yield ScoreMatrix(values, examples, np.zeros(len(chosen), dtype=np.int64)), rng


def _rows(rows: int, methods: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Each row of the study once or not at all, as long as there are enough."""
    return rng.permutation(rows)[:methods] if methods <= rows else rng.integers(0, rows, methods)


def _runs(scaled_SC: Array, design: SimulatedDesign, rng: np.random.Generator) -> Array:
    """New runs with the covariance scaled.T @ scaled."""
    if design.resampled:
        signs = rng.choice([-1.0, 1.0], size=design.seeds)
        drawn: Array = scaled_SC[rng.integers(0, len(scaled_SC), design.seeds)] * np.sqrt(len(scaled_SC))
        return np.asarray(drawn * signs[:, None])
    return np.asarray(rng.normal(size=(design.seeds, len(scaled_SC))) @ scaled_SC)


def _tally(
    matrix: ScoreMatrix,
    design: SimulatedDesign,
    margin: float,
    alpha: float,
    points: tuple[float, ...],
    rng: np.random.Generator,
) -> tuple[bool, bool, bool, bool, float, float, list[float]]:
    count = len(matrix.values_KSC)
    found = family(matrix, pairs(count), alpha, rng, SIMULATIONS)
    estimates = [[item for item in line if item is not None] for line in found.estimates]
    flat = [item for line in estimates for item in line]
    known = iter(judge(flat, found, margin))
    verdicts = [[next(known).verdict if item else None for item in line] for line in found.estimates]
    is_false = any(verdict in ("better", "worse") for line in verdicts for verdict in line)
    level = 1 - found.single_alpha
    covered = all(not abs(item.mean) > item.half_width(level) for item in flat)
    single = float(np.mean([abs(item.mean) <= item.half_width() for item in flat if item.error > 0] or [True]))
    with_first = [item for line in estimates[: count - 1] for item in line]

    def shifted(by: float) -> list[Verdict]:
        return [item.verdict for item in judge([stats.shifted(item, by) for item in with_first], found, margin)]

    same = any(verdict == "equivalent" for verdict in shifted(margin))
    planted = [shifted(value / 100) for value in points]
    power = [float(np.mean([verdict == "better" for verdict in line])) for line in planted]
    wrong = float(np.mean([verdict == "worse" for verdict in planted[0]]))
    best = design.seeds >= FEWEST_SEEDS and any(_has_leader(column, count) for column in zip(*verdicts, strict=True))
    return is_false, best, same, covered, single, wrong, power


def _has_leader(verdicts: tuple[Verdict | None, ...], count: int) -> bool:
    """Whether any row is better than all others; of a second there can be none without it."""
    won = np.zeros(count, dtype=int)
    for weights, verdict in zip(pairs(count), verdicts, strict=True):
        if verdict in ("better", "worse"):
            won[int(np.argmax(weights if verdict == "better" else -weights))] += 1
    return bool((won == count - 1).any())


def _deviations(values_KSC: Array) -> list[Array]:
    rows = len(values_KSC)
    with np.errstate(invalid="ignore"):
        left = values_KSC - np.nanmean(values_KSC, axis=1, keepdims=True)
        left = (left - np.nanmean(left, axis=0, keepdims=True)) * np.sqrt(rows / (rows - 1))
    return [part[np.isfinite(part).all(axis=1)] for part in left]
