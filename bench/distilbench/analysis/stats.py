"""Estimates, tests and power. Pure functions on arrays; R stands for the runs of one row, S for seeds, B for resamples.

A score varies with the seed and with the choice of examples, and so does a difference between two methods, which is
paired over both. Seeds are few: their part of the variance is taken from the seeds themselves and referred to
Student's t. Examples are many: their part is taken from a bootstrap over them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, gammaln, ndtr, ndtri, stdtrit, xlogy

Array = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
"""Probability with which a design should find a difference that is there."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its error."""

    mean: float
    seeds: int
    seed_variance: float
    """Of the mean: the part that more seeds make smaller. Not-a-number with one seed."""
    example_variance: float
    """Of the mean: the part that only more examples make smaller."""
    seed_freedom: float | None = None
    """Degrees of freedom of the seeds' part, where more than these seeds went into it; unset: seeds - 1."""

    @property
    def error(self) -> float:
        """Standard error of the mean over seeds and examples."""
        return math.sqrt(self.seed_variance + self.example_variance)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance between seeds; that over examples counts as known."""
        return float(self.seeds - 1) if self.seed_freedom is None else self.seed_freedom

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the confidence interval.

        The squares of the two parts' own half-widths are added (MOVER; Zou & Donner 2008, doi:10.1002/sim.3095), which
        keeps its level at one degree of freedom, where Satterthwaite's approximation is too narrow.
        """
        return math.hypot(*self._parts((1 + level) / 2))

    def _parts(self, share: float) -> tuple[float, float]:
        """Quantile of the seeds' part of the error and of the examples' part."""
        deviate = float(ndtri(share))
        of_seeds = 0.0 if self.seed_variance == 0 else _t_quantile(share, self.freedom) * math.sqrt(self.seed_variance)
        return of_seeds, deviate * math.sqrt(self.example_variance)

    def detectable(self, alpha: float, power: float = POWER) -> float:
        """The smallest true difference that a two-sided test at level `alpha` finds with probability `power`."""
        return math.hypot(*self._parts(1 - alpha / 2)) + math.hypot(*self._parts(power))

    def seeds_needed(self, difference: float, alpha: float, power: float = POWER) -> int | None:
        """Seeds with which an interval around the truth would not reach as far as a difference from it.

        The difference from 0 for one that is to be found. None when `MOST_SEEDS` are not enough or none can tell.
        """

        def is_found(seeds: int) -> bool:
            return with_seeds(self, seeds).detectable(alpha, power) <= abs(difference)

        if math.isnan(self.error) or not is_found(MOST_SEEDS):
            return None
        return bisect_left(range(MOST_SEEDS), True, lo=2, key=is_found)


def is_exactly_zero(item: Estimate) -> bool:
    """Whether both sides of a difference agree to the last digit, with every seed and on every example."""
    return item.mean == item.seed_variance == item.example_variance == 0


def negated(item: Estimate) -> Estimate:
    """The difference the other way round."""
    return replace(item, mean=-item.mean)


def shifted(item: Estimate, by: float) -> Estimate:
    """The same difference, larger."""
    return replace(item, mean=item.mean + by)


def with_seeds(item: Estimate, seeds: int) -> Estimate:
    """What would be expected of another number of seeds."""
    freedom = item.seed_freedom
    if freedom is not None:
        # What one seed has is the prior's, which counts no more than the seeds themselves.
        freedom = freedom * (seeds - 1) / (item.seeds - 1) if item.seeds > 1 else freedom + seeds - 1
    return replace(item, seeds=seeds, seed_variance=item.seed_variance * item.seeds / seeds, seed_freedom=freedom)


def estimate(values_S: Array, replicates_SB: Array) -> Estimate:
    """Mean over seeds of values whose bootstrap replicates over examples are given, the same examples for all seeds.

    The variance between seeds also holds that of the interaction of seeds with examples, and so does the bootstrap
    variance of their mean; it is counted once. One seed has no variance between seeds.
    """
    seeds = len(values_S)
    of_mean = float(replicates_SB.mean(axis=0).var(ddof=1))
    if seeds < 2:
        return Estimate(float(values_S.mean()), seeds, math.nan, of_mean)
    of_each = float(replicates_SB.var(axis=1, ddof=1).mean())
    shared = max(0.0, (of_each - of_mean) / (seeds - 1))
    between = float(values_S.var(ddof=1)) / seeds
    return Estimate(float(values_S.mean()), seeds, between, max(0.0, of_mean - shared))


def estimate_apart(one_S: Array, one_SB: Array, other_S: Array, other_SB: Array) -> Estimate:
    """Difference of two means over seeds that are not paired, on the same examples.

    How a run varies with the examples on its own account is in the variance between the runs of a side, and again in
    that of the resampled difference, which therefore gives it up. A side of one run is taken to vary as the other does;
    where both have one, only the two models themselves are compared, and seeds have no part in it.
    """
    difference_B = one_SB.mean(axis=0) - other_SB.mean(axis=0)
    value, counts = float(one_S.mean() - other_S.mean()), (len(one_S), len(other_S))
    several = [(side_S, side_SB) for side_S, side_SB in ((one_S, one_SB), (other_S, other_SB)) if len(side_S) > 1]
    if not several:
        return fixed(value, difference_B)
    first, last = (float(side_S.var(ddof=1)) for side_S, _ in (several[0], several[-1]))
    between = first / counts[0] + last / counts[1]
    if len(several) == 1 or between == 0:
        freedom = float(max(counts) - 1)
    else:
        parts = zip((first, last), counts, strict=True)
        freedom = between**2 / sum((variance / n) ** 2 / (n - 1) for variance, n in parts)
    own = [_own_variance(side_SB) for _, side_SB in several]
    twice = own[0] / counts[0] + own[-1] / counts[1]
    return Estimate(value, round(freedom) + 1, between, max(0.0, float(difference_B.var(ddof=1)) - twice))


def _own_variance(replicates_SB: Array) -> float:
    """Variance over examples of a run that it does not share with the others of its side."""
    seeds = len(replicates_SB)
    of_each = float(replicates_SB.var(axis=1, ddof=1).mean())
    of_mean = float(replicates_SB.mean(axis=0).var(ddof=1))
    # of_each = shared + own, of_mean = shared + own / seeds.
    return max(0.0, (of_each - of_mean) * seeds / (seeds - 1))


def fixed(value: float, replicates_B: Array) -> Estimate:
    """The score of a model that no seed changes."""
    return Estimate(value, 1, 0.0, float(replicates_B.var(ddof=1)))


def improvement(one_ST: Array, other_ST: Array) -> float:
    """Probability that a run of the one beats a run of the other on a task drawn at random; ties count half.

    Agarwal et al. 2021, arXiv:2108.13264: the Mann-Whitney statistic averaged over tasks.
    """
    above = one_ST[:, None] - other_ST[None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def interquartile_mean(values_NB: Array) -> Array:
    """Mean of the middle half of N values, those at the quartiles in part, [B] (Agarwal et al. 2021)."""
    ordered_NB = np.sort(values_NB, axis=0)
    edges = np.arange(len(ordered_NB) + 1) / len(ordered_NB)
    weights_N = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return np.asarray(np.tensordot(weights_N / weights_N.sum(), ordered_NB, axes=1))


def sample_sd(values_RC: Array) -> Array:
    """Standard deviation of each of C columns with divisor R - 1, [C]; not-a-number when R < 2."""
    several = len(values_RC) > 1
    return np.asarray(values_RC.std(axis=0, ddof=1) if several else np.full(values_RC.shape[1], np.nan))


def half_width(values_RC: Array, level: float = LEVEL) -> Array:
    """Half of the Student-t interval of each column's mean, t(R - 1) * sd / sqrt(R), [C]; not-a-number when R < 2."""
    count = len(values_RC)
    return _t_quantile((1 + level) / 2, count - 1) * sample_sd(values_RC) / math.sqrt(count)


def gap_share(score: Array, floor: Array, ceiling: Array) -> Array:
    """Share of the way from `floor` to `ceiling` that `score` has come; not-a-number unless ceiling > floor.

    The arrays have one shape. Below 0: worse than the floor. Above 1: better than the ceiling.
    """
    gap = np.where(ceiling > floor, ceiling - floor, np.nan)
    return np.asarray((score - floor) / gap, dtype=np.float64)


def normal_deviate(distance: Array, seed_variance: Array, freedom: Array, example_variance: Array) -> Array:
    """The standard normal deviate whose interval just reaches a distance; the arrays have one shape or broadcast.

    It is z where distance^2 = t(z)^2 * seed_variance + z^2 * example_variance, t(z) the Student quantile of the level
    of z. Infinite where nothing varies and the distance is not 0; not-a-number where the variance is.
    """
    return _by_freedom(_deviate, distance, seed_variance, freedom, example_variance)


def highest_deviate(distance: Array, seed_variance: Array, freedom: Array, example_variance: Array) -> Array:
    """The largest `normal_deviate` of each line, [M], of arrays that broadcast to [M, ...]; the rest counts as 0."""

    def lines(part: Array) -> Array:
        return np.asarray(np.nan_to_num(np.broadcast_to(part, distance.shape).reshape(len(distance), -1)))

    far, of_seeds, free, of_examples = (lines(part) for part in (distance, seed_variance, freedom, example_variance))
    # A bound is cheap, and only what may be the largest needs its value.
    bounds = np.sqrt(_by_freedom(_bound, far, of_seeds, free, of_examples))
    first = np.arange(len(bounds)), bounds.argmax(axis=1)
    highest = normal_deviate(far[first], of_seeds[first], free[first], of_examples[first])
    further = np.nonzero(bounds > highest[:, None])
    found = normal_deviate(far[further], of_seeds[further], free[further], of_examples[further])
    np.maximum.at(highest, further[0], found)
    return highest


def _by_freedom(
    solve: Callable[[Array, Array, Array, float], Array],
    distance: Array,
    of_seeds: Array,
    freedom: Array,
    of_examples: Array,
) -> Array:
    """A function of squared distances and variances at each number of degrees of freedom."""
    shape = np.broadcast_shapes(*(np.shape(part) for part in (distance, of_seeds, freedom, of_examples)))
    found, freedom = np.empty(shape), np.broadcast_to(freedom, shape)
    given = [np.broadcast_to(part, shape) for part in (np.square(distance), of_seeds, of_examples)]
    for value in np.unique(freedom):
        chosen = freedom == value
        squared, seeds, examples = (part[chosen] for part in given)
        found[chosen] = solve(squared, seeds, examples, min(float(value), 1e6))
    return found


def _bound(squared: Array, of_seeds: Array, of_examples: Array, freedom: float) -> Array:
    """What z^2 cannot exceed: what it would be if only one of the two parts varied."""
    squares_N, logs_N, _ = _student_logs(freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        from_seeds = np.interp(np.log1p(squared / (freedom * of_seeds)), logs_N, squares_N)
        return np.where(squared == 0, 0.0, np.fmin(from_seeds, squared / of_examples))


def _deviate(squared: Array, of_seeds: Array, of_examples: Array, freedom: float) -> Array:
    """By Newton's method on z^2, from above, where the sum of the two parts is convex."""
    squares_N, logs_N, slopes_N = _student_logs(freedom)
    square = _bound(squared, of_seeds, of_examples, freedom)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(STEPS):
            grown = freedom * of_seeds * np.exp(np.interp(square, squares_N, logs_N))
            excess = grown - freedom * of_seeds + of_examples * square - squared
            slope = grown * np.interp(square, squares_N, slopes_N) + of_examples
            square = np.clip(np.where(slope > 0, square - excess / slope, square), 0, squares_N[-1])
        found = np.sqrt(square)
    nothing = of_seeds + of_examples == 0
    return np.where(nothing, np.where(squared == 0, 0.0, np.inf), np.where(np.isnan(of_seeds), np.nan, found))


STEPS, MOST_DEVIATE = 8, 12.0


@lru_cache(maxsize=256)
def _student_logs(freedom: float) -> tuple[Array, Array, Array]:
    """A grid of squares z^2, log(1 + t^2 / freedom) there, and its slope."""
    deviates = np.linspace(0, MOST_DEVIATE, 601)
    quantiles = -stdtrit(freedom, ndtr(-deviates))
    squares, logs = deviates**2, np.log1p(quantiles**2 / freedom)
    return squares, logs, np.gradient(logs, squares)


# Of scipy.stats, the import alone takes longer than all else that reads results.
def chi2_median(freedom: npt.ArrayLike) -> Array:
    """Median of the chi-squared distribution."""
    return np.asarray(2 * gammaincinv(np.asarray(freedom) / 2, 0.5))


def chi2_density(value: npt.ArrayLike, freedom: npt.ArrayLike) -> Array:
    """Density of the chi-squared distribution."""
    there, half = np.asarray(value, dtype=np.float64), np.asarray(freedom, dtype=np.float64) / 2
    return np.asarray(np.exp(xlogy(half - 1, there) - there / 2 - gammaln(half) - np.log(2) * half))


def _t_quantile(share: float, freedom: float) -> float:
    return float(stdtrit(min(freedom, 1e9), share))
