"""The lines of a check judged together: the mean over rows beside the rows, and one distribution of all statistics.

Shapes: K rows, C columns, F families, M simulated checks, N residuals, B resamples; X any shape before these.

A row's variance between seeds is its own, pooled over both sides: the same code varies alike on both. What lowers all
rows shows in their mean first, in which a row that varies much has little weight. The statistics' joint distribution
without drops comes from simulated checks (single-step, as in `distilbench.analysis.simultaneous`), each family of lines
having the same chance of a false alarm (minimum of their p-values; Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distilbench.analysis import stats
from distilbench.analysis.moderated import TINY, prior_freedom
from distilbench.analysis.simultaneous import root
from distilbench.analysis.stats import Array
from distilbench.gate.judging.columns import ALL_ROWS, SEED, ColumnDifference

SIMULATIONS = 2000
AT_ONCE = 2_000_000
"""Random numbers that are held at a time."""
Kind = tuple[bool, bool]
"""Whether a line decides, and whether it is of the mean over rows."""


def kind_of(item: ColumnDifference) -> Kind:
    """The family of a line."""
    return item.decides, item.label == ALL_ROWS


@dataclass(frozen=True)
class Families:
    """What the largest statistics of a check without drops are like, on the scale of a standard normal deviate."""

    highest: dict[Kind, Array]
    """Of each simulated check, [M]."""

    @cached_property
    def least_M(self) -> Array:
        """The smallest p-value of any family, of each simulated check, in ascending order."""
        shares = [self._shares(kind, highest_M, beside_itself=False) for kind, highest_M in self.highest.items()]
        return np.sort(np.min(shares, axis=0)) if shares else np.zeros(0)

    def adjusted(self, kind: Kind, statistics: Array) -> Array:
        """Share of the checks without drops with a p-value in any family like that of each statistic, or below.

        1 for what is not a number.
        """
        if kind not in self.highest:
            return np.ones(np.shape(statistics))
        reached = np.searchsorted(self.least_M, self._shares(kind, statistics, beside_itself=True), side="right")
        return np.where(np.isnan(statistics), 1.0, (1 + reached) / (1 + len(self.least_M)))

    def critical(self, kind: Kind, alpha: float) -> float:
        """What a statistic must exceed for its adjusted p-value to be below `alpha`; infinite where no such value is
        known."""
        if kind not in self.highest:
            return float("inf")
        highest_M = np.sort(self.highest[kind])
        exceeded = self.adjusted(kind, np.nextafter(highest_M, np.inf)) < alpha
        return float(highest_M[exceeded.argmax()]) if exceeded.any() else float("inf")

    def _shares(self, kind: Kind, statistics: Array, *, beside_itself: bool) -> Array:
        """Of the simulated checks, in whose family any line reaches a statistic."""
        highest_M = np.sort(self.highest[kind])
        reached = len(highest_M) - np.searchsorted(highest_M, statistics, side="left")
        return np.asarray((reached + beside_itself) / (len(highest_M) + beside_itself))


@dataclass(frozen=True)
class _Grid:
    """Items as an array of rows and columns; what is not there, or not known, varies by nothing and is not judged."""

    items: Sequence[ColumnDifference]

    @cached_property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(item.label for item in self.items))

    @cached_property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(item.column for item in self.items))

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        return [(self.labels.index(item.label), self.columns.index(item.column)) for item in self.items]

    def filled(self, values: Sequence[float], otherwise: float = 0.0) -> Array:
        found_KC = np.full((len(self.labels), len(self.columns)), otherwise)
        for place, value in zip(self.places, values, strict=True):
            found_KC[place] = value
        return found_KC

    @cached_property
    def judged_KC(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.filled([item.is_known and item.difference.error > 0 for item in self.items]) > 0)

    @cached_property
    def own_KC(self) -> Array:
        """Variance between seeds."""
        return self.filled([item.spread.variance for item in self.items])

    @cached_property
    def freedom_K(self) -> npt.NDArray[np.int64]:
        """Its degrees of freedom."""
        found_K: npt.NDArray[np.int64] = (
            self.filled([item.spread.freedom for item in self.items]).max(axis=1).astype(int)
        )
        return found_K

    @cached_property
    def scale_K(self) -> Array:
        """The variance of a row's difference, in that of a seed."""
        return np.asarray(self.filled([item.spread.scale for item in self.items]).max(axis=1))

    @cached_property
    def varies_K(self) -> npt.NDArray[np.bool_]:
        """Which rows any seed changes."""
        return np.asarray((self.freedom_K > 0) & (self.own_KC > 0).any(axis=1))

    @cached_property
    def can_be_averaged(self) -> bool:
        """Whether all rows vary, between the same seeds."""
        same = len({(item.spread.seeds, item.spread.scale, item.paired) for item in self.items}) == 1
        return same and len(self.labels) > 1 and bool(self.varies_K.all())

    def columns_of(self, *, decides: bool) -> list[int]:
        """The columns of a family on which all rows are judged."""
        kinds = {item.column: item.decides for item in self.items}
        return [c for c, name in enumerate(self.columns) if kinds[name] is decides and self.judged_KC[:, c].all()]

    def column_root(self) -> Array:
        """Root of the correlation of the columns between seeds, [C, C], shrunk where runs are few."""
        parts = {label: np.zeros((0, len(self.columns))) for label in self.labels}
        for item, (_, c) in zip(self.items, self.places, strict=True):
            if not item.spread.variance:
                continue
            if not len(parts[item.label]):
                parts[item.label] = np.zeros((len(item.spread.residuals), len(self.columns)))
            parts[item.label][:, c] = item.spread.residuals / np.sqrt(item.spread.variance)
        left_NC = np.concatenate(list(parts.values()))
        scale_C = np.sqrt((left_NC**2).sum(axis=0))
        freedom = int(self.freedom_K[self.varies_K].sum())
        if not freedom or not scale_C.all():
            return np.eye(len(self.columns))
        found_CC = (left_NC / scale_C).T @ (left_NC / scale_C)
        share = 2 / (freedom + 2)
        # Columns that are one and the same stay so; few residuals correlate fully where they differ, too.
        same_CC = (self.own_KC[:, :, None] == self.own_KC[:, None]).all(axis=0) & (found_CC > 1 - 1e-9)
        return root((1 - share) * found_CC + share * same_CC)

    def examples_root(self) -> Array:
        """Root of the covariance of the differences over examples, [K x C, x]."""
        variance_KC = self.filled([item.difference.example_variance for item in self.items])
        resamples = max((len(item.spread.replicates) for item in self.items), default=0)
        left_KCB = np.zeros((*variance_KC.shape, resamples))
        for item, place in zip(self.items, self.places, strict=True):
            left_KCB[place] = np.nan_to_num(item.spread.replicates - item.spread.replicates.mean())
        flat_NB = left_KCB.reshape(-1, resamples)
        scale_N = np.sqrt((flat_NB**2).sum(axis=1))
        flat_NB = flat_NB / np.where(scale_N > 0, scale_N, 1)[:, None]
        sd_N = np.sqrt(np.nan_to_num(variance_KC)).ravel()
        return root((flat_NB @ flat_NB.T) * np.outer(sd_N, sd_N))


def with_means(items: Sequence[ColumnDifference]) -> list[ColumnDifference]:
    """The items, and the mean over rows on each column, where every row varies between the same seeds."""
    grid = _Grid(items)
    made = list(items)
    for decides in (True, False):
        columns = grid.columns_of(decides=decides) if items and grid.can_be_averaged else []
        if not columns:
            continue
        parts = [[item for item in items if item.column == grid.columns[c]] for c in columns]
        residuals_KNC = np.array([[item.spread.residuals for item in part] for part in parts]).transpose(1, 2, 0)
        freedom = int(grid.freedom_K[0])
        weights_KC, variance_C, times = _average(residuals_KNC, grid.own_KC[:, columns], freedom)
        for part, weights_K, variance in zip(parts, weights_KC.T, variance_C, strict=True):
            of_examples_B = np.sum([_left_to_examples(*given) for given in zip(part, weights_K, strict=True)], axis=0)
            spread = replace(part[0].spread, replicates=of_examples_B, weights=tuple(map(float, weights_K)))
            difference = replace(
                part[0].difference,
                seed_variance=float(variance) * spread.scale,
                example_variance=float(of_examples_B.var(ddof=1)),
                seed_freedom=float(times * freedom),
            )
            made.append(replace(part[0], label=ALL_ROWS, difference=difference, spread=spread))
    return averaged_again(made)


def averaged_again(items: list[ColumnDifference]) -> list[ColumnDifference]:
    """The items with the means over rows as the rows are now."""
    made = []
    for item in items:
        if item.label != ALL_ROWS:
            made.append(item)
            continue
        rows = [other for other in items if other.column == item.column and other.label != ALL_ROWS]
        weights = item.spread.weights
        mean = float(np.dot(weights, [row.difference.mean for row in rows]))
        before, now = (float(np.dot(weights, [row.values[side] for row in rows])) for side in (0, 1))
        made.append(replace(item, difference=replace(item.difference, mean=mean), values=(before, now)))
    return made


def _left_to_examples(item: ColumnDifference, weight: float) -> Array:
    """Replicates in the mean over rows, with the variance that is left to the examples."""
    left_B = np.nan_to_num(item.spread.replicates - item.spread.replicates.mean())
    variance = float(left_B.var(ddof=1))
    return np.asarray(weight * left_B * np.sqrt(item.difference.example_variance / variance if variance else 0.0))


def _average(residuals_XKNC: Array, own_XKC: Array, freedom: int) -> tuple[Array, Array, int]:
    """Weights of the rows in their mean, [..., K, C], its variance, [..., C], and times its degrees of freedom.

    Rows may vary together. By how much they do is found on each column, and half of it is taken from all columns.
    """
    inverse_XKC = 1 / np.maximum(_towards_the_middle(own_XKC, freedom), TINY)
    weights_XKC = inverse_XKC / inverse_XKC.sum(axis=-2, keepdims=True)
    found_XC = ((weights_XKC[..., None, :] * residuals_XKNC).sum(axis=-3) ** 2).sum(axis=-2) / freedom
    if found_XC.shape[-1] == 1:
        return weights_XKC, found_XC, 1
    independent_XC = (weights_XKC**2 * own_XKC).sum(axis=-2)
    together_X = (found_XC / np.maximum(independent_XC, TINY)).mean(axis=-1, keepdims=True)
    return weights_XKC, (found_XC + together_X * independent_XC) / 2, 2


def _towards_the_middle(own_XKC: Array, freedom: int) -> Array:
    """Variances of rows, half of their degrees of freedom being those of the row in the middle; none of two rows."""
    prior = prior_freedom(np.full(own_XKC.shape[-2], float(freedom)))
    middle_XC = np.median(own_XKC, axis=-2, keepdims=True) * freedom / stats.chi2_median(freedom)
    return np.asarray((freedom * own_XKC + prior * middle_XC) / (freedom + prior))


def families_of(items: Sequence[ColumnDifference], simulations: int = SIMULATIONS) -> Families:
    """Simulate checks in which nothing has dropped; `items` are those of `with_means`."""
    grid, rng = _Grid([item for item in items if item.label != ALL_ROWS]), np.random.default_rng(SEED)
    if not items or not grid.judged_KC.any():
        return Families({})
    null = _NullChecks(grid, [item for item in items if item.label == ALL_ROWS])
    step = max(1, AT_ONCE // (grid.own_KC.size * (int(grid.freedom_K.max()) + 1)))
    sizes = [min(step, simulations - start) for start in range(0, simulations, step)]
    drawn = [null.highest(count, rng) for count in sizes]
    return Families({kind: np.concatenate([part[kind] for part in drawn]) for kind in drawn[0]})


class _NullChecks:
    """Checks in which nothing has dropped."""

    def __init__(self, grid: _Grid, means: list[ColumnDifference]) -> None:
        """`means`: over the rows of the grid, as they were found."""
        self.grid = grid
        self.sd_KC = np.sqrt(grid.own_KC)
        self.columns_CC, self.examples_NX = grid.column_root(), grid.examples_root()
        known = [item.difference.example_variance if item.is_known else 0.0 for item in grid.items]
        self.example_KC = grid.filled(known)
        self.freedom_KC = np.broadcast_to(np.maximum(grid.freedom_K, 1)[:, None].astype(np.float64), self.sd_KC.shape)
        self.of_means = {item.column: item.difference.example_variance for item in means}

    def highest(self, count: int, rng: np.random.Generator) -> dict[Kind, Array]:
        """The largest statistics of so many checks, [M]."""
        grid, shape = self.grid, (count, *self.sd_KC.shape)
        own_MKC, residuals_MKNC = np.zeros(shape), np.zeros((count, len(grid.labels), 0, shape[2]))
        for freedom in map(int, np.unique(grid.freedom_K[grid.freedom_K > 0])):
            rows = np.flatnonzero(grid.freedom_K == freedom)
            drawn = rng.normal(size=(count, len(rows), freedom, shape[2])) @ self.columns_CC.T
            residuals_MKNC = drawn * self.sd_KC[rows][:, None]
            own_MKC[:, rows] = (residuals_MKNC**2).mean(axis=2)
        scale_KC = grid.scale_K[:, None]
        by_seeds = rng.normal(size=shape) @ self.columns_CC.T * self.sd_KC * np.sqrt(scale_KC)
        by_examples = (rng.normal(size=(count, self.examples_NX.shape[1])) @ self.examples_NX.T).reshape(shape)
        differences = by_seeds + by_examples
        drops = np.where(grid.judged_KC, np.minimum(differences, 0), 0.0)
        made: dict[Kind, Array] = {}
        for decides in (True, False):
            mine = [c for c, name in enumerate(grid.columns) if decides is self._decides(name)]
            if grid.judged_KC[:, mine].any():
                parts = (drops[..., mine], (own_MKC * scale_KC)[..., mine], self.freedom_KC[:, mine])
                made[decides, False] = stats.highest_deviate(*parts, self.example_KC[:, mine])
            if columns := [c for c in grid.columns_of(decides=decides) if grid.columns[c] in self.of_means]:
                runs, own = residuals_MKNC[..., columns], own_MKC[..., columns]
                weights_MKC, variance_MC, times = _average(runs, own, int(grid.freedom_K[0]))
                drops_MC = np.minimum((weights_MKC * differences[..., columns]).sum(axis=1), 0)
                of_examples_C = np.array([self.of_means[grid.columns[c]] for c in columns])
                freedom_C = np.full(len(columns), float(times * grid.freedom_K[0]))
                scaled_MC = variance_MC * grid.scale_K[0]
                made[decides, True] = stats.highest_deviate(drops_MC, scaled_MC, freedom_C, of_examples_C)
        return made

    def _decides(self, column: str) -> bool:
        return any(item.decides for item in self.grid.items if item.column == column)
