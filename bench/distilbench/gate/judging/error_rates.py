"""How often the gate is wrong: checks simulated from the runs of a real study, judged by the same functions.

Shapes: K rows, S seeds, C columns, B resamples. A simulated run is its row's mean and a normal mixture of the
deviations of the row's runs, in its scores and in their replicates alike, so that runs vary, and examples tell of it,
as those of the study do. What a seed does to all rows is in fresh seeds, and drops out of paired ones. Both sides are
scored on the same examples, and what these do to a row is on both sides; a drop lowers every column alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distilbench.analysis import stats
from distilbench.analysis.error_rates import GateDesign, GateRates
from distilbench.analysis.stats import Array
from distilbench.core.errors import UserError
from distilbench.gate.baseline import Scores, scores_of
from distilbench.gate.check import CheckLine, Verdict, overall, verdicts_of
from distilbench.gate.judging.columns import ALL_ROWS, ColumnDifference, ResampledRuns, differ
from distilbench.gate.judging.family import Families, averaged_again, families_of, with_means
from distilbench.reporting import study_folders
from distilbench.reporting.formats.render import Table

ALPHA = 0.05
RESAMPLES = 400
"""Of the examples, fewer than a check has, for there are many checks."""
SIMULATIONS = 500
"""Of the largest statistic in each check; likewise."""
Items = list[ColumnDifference]
POINTS = (0.5, 1.0, 2.0)
STORED = 5
"""Seeds of the baseline that a candidate of one seed is held against."""


@dataclass(frozen=True)
class RunPopulation:
    """What checks are drawn from; the last axis holds a score and its replicates, 1 + B."""

    labels: list[str]
    columns: dict[str, bool]
    """Column -> whether it decides."""
    means_KCX: Array
    common_SCX: Array
    """Deviations of a seed in all rows; so scaled that their sum of squares is the variance. Likewise: """
    own_KSCX: Array
    """The deviations that a row has for itself."""

    @classmethod
    def of(cls, scores: Scores) -> RunPopulation:
        """Of a study's runs. Raises `UserError` where not all its rows have the same two seeds or more."""
        compared = ResampledRuns(scores, scores, list(scores.tasks), RESAMPLES)
        labels = sorted(set(map(str, scores.runs["label"])))
        runs = {label: compared.sides(label)[1] for label in labels}
        seeds = sorted(set.intersection(*(set(mine.index) for mine in runs.values())))
        if len(seeds) < 2:
            raise UserError("no two seeds are common to all rows, from which checks could be simulated; run seeds=5")
        found = [
            [np.column_stack(compared.values(mine.loc[seeds], tasks)) for tasks, _ in compared.columns.values()]
            for mine in runs.values()
        ]
        values_KSCX = np.array(found).transpose(0, 2, 1, 3)
        means_KCX = values_KSCX.mean(axis=1)
        left_KSCX = (values_KSCX - means_KCX[:, None]) / np.sqrt(len(seeds) - 1)
        common_SCX = left_KSCX.mean(axis=0) if len(labels) > 1 else 0 * left_KSCX[0]
        own_KSCX = (left_KSCX - common_SCX) * np.sqrt(len(labels) / max(len(labels) - 1, 1))
        # The rows' mean has a part of their own deviations, too, which is no seed's doing.
        own_C, common_C = (np.square(part[..., 0]).sum(axis=-2) for part in (own_KSCX, common_SCX))
        with np.errstate(divide="ignore", invalid="ignore"):
            left_over_C = np.nan_to_num(1 - own_C.sum(axis=0) / len(labels) ** 2 / common_C)
        common_SCX = common_SCX * np.sqrt(np.clip(left_over_C, 0, None))[:, None]
        decides = {column: decide for column, (_, decide) in compared.columns.items()}
        return cls(labels, decides, means_KCX, common_SCX, own_KSCX)

    def runs(self, seeds: int, *, paired: bool, rng: np.random.Generator) -> Array:
        """A side, [K, seeds, C, X]."""
        rows, count = self.own_KSCX.shape[:2]
        drawn = rng.normal(size=(rows, seeds, count))
        own = np.einsum("kns,kscx->kncx", drawn, self.own_KSCX, optimize=True)
        shared = 0.0 if paired else np.tensordot(rng.normal(size=(seeds, count)), self.common_SCX, axes=1)
        return np.asarray(self.means_KCX[:, None] + own + shared)


def error_rates(results: Path, checks: int, margin: float, alpha: float = ALPHA) -> list[Table]:
    """How often checks of each study in a folder are wrong, with so many of each design; kept beside the records.

    Raises `UserError` where there is nothing to simulate from.
    """
    from distilbench.analysis.frame import make_study
    from distilbench.records.record import read_study
    from distilbench.reporting.tables import error_rates as tables

    made = []
    for folder in study_folders(results):
        population = RunPopulation.of(scores_of(folder))
        rates = [gate_rates(population, design, checks, margin, alpha) for design in designs(len(population.labels))]
        study = make_study(folder.name, read_study(folder), margin)
        tables.keep_gate(folder, study, rates)
        made.append(tables.gate_table(study, rates))
    return made


def designs(rows: int, paired: Sequence[bool] = (False, True)) -> list[GateDesign]:
    """All rows, and one; one seed against a stored spread, and 2, 3 and 5 on each side."""
    counts = [(1, STORED), (2, 2), (3, 3), (5, 5)]
    return [
        GateDesign(number, *count, by_seed)
        for number in dict.fromkeys((rows, 1))
        for by_seed in paired
        for count in counts
        if not by_seed or count[0] > 1
    ]


def gate_rates(
    population: RunPopulation, design: GateDesign, checks: int, margin: float, alpha: float, seed: int = 0
) -> GateRates:
    """Simulate checks of a candidate without a drop, and judge each again with drops planted."""
    same: list[Verdict] = []
    at_margin: list[Verdict] = []
    everywhere: dict[float, list[Verdict]] = {points: [] for points in POINTS}
    alone: dict[float, list[Verdict]] = {points: [] for points in POINTS}
    for raw, rng in _checks(population, design, checks, seed):
        items = with_means(raw)
        families = families_of(items, SIMULATIONS)
        labels = sorted({item.label for item in items} - {ALL_ROWS})
        one, every = {str(rng.choice(labels))}, set(labels)

        def verdict(dropped: set[str], drop: float, items: Items = items, families: Families = families) -> Verdict:
            found = verdicts_of(_dropped(items, dropped, drop), margin, alpha, families)
            # What a line tells beside its verdict takes longer than the verdict.
            return overall(
                [
                    CheckLine(item.label, item.column, item.decides, told)
                    for item, told in zip(items, found, strict=True)
                ]
            )

        same.append(verdict(set(), 0.0))
        at_margin.append(verdict(one, margin))
        for points in POINTS:
            everywhere[points].append(verdict(every, points / 100))
            alone[points].append(verdict(one, points / 100))
    return GateRates(
        design,
        checks,
        alpha,
        false_alarm=_share(same, "regressed"),
        inconclusive=_share(same, "inconclusive"),
        passed=_share(same, "pass", "improved"),
        found={f"{points:g}": _share(found, "regressed") for points, found in everywhere.items()},
        found_in_one={f"{points:g}": _share(found, "regressed") for points, found in alone.items()},
        passed_at_margin=_share(at_margin, "pass", "improved"),
    )


def _checks(
    population: RunPopulation, design: GateDesign, count: int, seed: int
) -> Iterator[tuple[Items, np.random.Generator]]:
    for rng in np.random.default_rng(seed).spawn(count):
        chosen = rng.permutation(len(population.labels))[: design.rows]
        new, old = (
            population.runs(seeds, paired=design.paired, rng=rng) for seeds in (design.seeds, design.baseline_seeds)
        )
        sides = {population.labels[row]: (new[row], old[row]) for row in sorted(chosen)}
        items = [
            differ(
                ColumnDifference(label, column, decides),
                (one[:, place, 0], one[:, place, 1:]),
                (other[:, place, 0], other[:, place, 1:]),
                paired=design.paired,
            )
            for label, (one, other) in sides.items()
            for place, (column, decides) in enumerate(population.columns.items())
        ]
        yield items, rng


def _dropped(items: Items, labels: set[str], drop: float) -> Items:
    """With a drop in some rows, and so in their mean."""
    dropped = [
        replace(item, difference=stats.shifted(item.difference, -drop)) if item.label in labels else item
        for item in items
    ]
    return averaged_again(dropped)


def _share(verdicts: list[Verdict], *wanted: Verdict) -> float:
    return float(np.mean([verdict in wanted for verdict in verdicts]))
