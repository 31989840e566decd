"""Contrasts between rows that are judged together: one family, one critical value, intervals from the same variances.

Shapes: K rows, S seeds, C columns of scores, P contrasts, M simulated studies. What a row lacks is not-a-number.

The joint distribution of all statistics comes from a parametric bootstrap (Westfall & Young 1993; Romano & Wolf 2005):
studies without any difference, whose rows keep the covariance over examples that was found and take each other's
variances between seeds at random, since a row that varies much may by chance seem to vary little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from distilbench.analysis import stats
from distilbench.analysis.moderated import (
    CONSTANT,
    ModeratedContrasts,
    ScoreMatrix,
    groups_of,
    nanmedian,
    row_variances,
    weighted,
)
from distilbench.analysis.stats import Array

SIMULATIONS = 2000
MOST_VALUES = 100_000_000
"""Statistics that are simulated at most: larger families have fewer simulated studies, down to the fewest."""
FEWEST_SIMULATIONS = 500
AT_ONCE = 500_000
"""Statistics that are held at a time."""


@dataclass(frozen=True)
class Family:
    """Contrasts with what is common to their judgement."""

    estimates: list[list[stats.Estimate | None]]
    """[P][C]; None where no seed has all rows of the contrast."""
    alpha: float
    highest_M: Array
    """The largest statistic of each simulated study without differences, in ascending order."""

    @property
    def critical(self) -> float:
        """The statistic, on the scale of a standard normal deviate, above which a contrast is judged to be real."""
        exceeding = math.floor(self.alpha * (len(self.highest_M) + 1)) - 1
        return float(self.highest_M[len(self.highest_M) - 1 - exceeding]) if len(self.highest_M) else math.inf

    @property
    def single_alpha(self) -> float:
        """Error of a single two-sided test with that critical value."""
        return float(2 * ndtr(-self.critical))

    def adjusted(self, statistic: float) -> float:
        """Share of studies without differences in which any contrast reaches a statistic."""
        if math.isnan(statistic):
            return 1.0
        reached = len(self.highest_M) - int(np.searchsorted(self.highest_M, statistic, side="left"))
        return (1 + reached) / (1 + len(self.highest_M))


def family(
    matrix: ScoreMatrix, weights_PK: Array, alpha: float, rng: np.random.Generator, simulations: int = SIMULATIONS
) -> Family:
    """Estimate contrasts (each line of weights sums to 0) and simulate how they vary without differences."""
    there_KSC = matrix.there_KSC
    filled_KSC = np.where(there_KSC, matrix.values_KSC, 0.0)
    design = ModeratedContrasts.of(matrix, weights_PK)
    mean_PC, seed_PC, freedom_PC = design.moderated(filled_KSC)
    example_PC = matrix.example_variances(weights_PK)
    estimates = [
        [
            stats.Estimate(
                float(mean_PC[p, c]),
                int(design.seeds_PC[p, c]),
                float(seed_PC[p, c]),
                float(example_PC[p, c]),
                float(freedom_PC[p, c]),
            )
            if design.seeds_PC[p, c]
            else None
            for c in range(mean_PC.shape[1])
        ]
        for p in range(len(weights_PK))
    ]
    statistic_PC = stats.normal_deviate(mean_PC, seed_PC, freedom_PC, example_PC)
    judged_PC = (design.seeds_PC > 0) & np.isfinite(statistic_PC) & (mean_PC**2 + seed_PC + example_PC > 0)
    if not judged_PC.any():
        return Family(estimates, alpha, np.zeros(0))
    count = min(simulations, max(FEWEST_SIMULATIONS, MOST_VALUES // judged_PC.size))
    highest_M = np.empty(count)
    null = _Null.of(matrix, row_variances(matrix, filled_KSC))
    step = max(1, AT_ONCE // judged_PC.size)
    for start in range(0, count, step):
        drawn_MKSC, examples_MKC = null.draw(min(step, count - start), rng)
        mean_MPC, seeds_MPC, _ = design.moderated(np.where(there_KSC, drawn_MKSC, 0.0))
        mean_MPC = mean_MPC + weighted(weights_PK, examples_MKC)
        judged_MN = (np.where(judged_PC, mean_MPC, 0.0), seeds_MPC, freedom_PC, example_PC)
        highest_M[start : start + step] = stats.highest_deviate(*judged_MN)
    return Family(estimates, alpha, np.sort(highest_M))


@dataclass(frozen=True)
class _Null:
    """Studies in which all rows are equal."""

    sd_KC: Array
    """Standard deviation of each row between seeds."""
    groups_K: npt.NDArray[np.int64]
    columns_CC: Array
    """Root of the correlation of a run's columns."""
    examples_KCX: Array
    """Root of the covariance over examples."""
    seeds: int

    @classmethod
    def of(cls, matrix: ScoreMatrix, variances_KC: Array) -> _Null:
        rows, seeds, columns = matrix.values_KSC.shape
        sd_KC = np.sqrt(np.nan_to_num(_known(variances_KC, matrix.groups_K)))
        flat = matrix.examples_KCKC.reshape(rows * columns, rows * columns)
        return cls(sd_KC, matrix.groups_K, _column_root(matrix), root(flat).reshape(rows, columns, -1), seeds)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Parts of scores by seeds, [M, K, S, C], and by examples, [M, K, C]."""
        rows, columns = self.sd_KC.shape
        sd_MKC = np.broadcast_to(self.sd_KC, (count, rows, columns)).copy()
        for group, members in groups_of(self.groups_K):
            if group >= 0:
                taken = np.argsort(rng.random((count, len(members))), axis=1)
                sd_MKC[:, members] = self.sd_KC[members][taken]
        drawn = rng.normal(size=(count, rows, self.seeds, columns)) @ self.columns_CC.T * sd_MKC[:, :, None, :]
        of_examples = rng.normal(size=(count, self.examples_KCX.shape[2]))
        return drawn, np.einsum("kcx,mx->mkc", self.examples_KCX, of_examples)


def pairs(rows: int) -> Array:
    """The contrasts of all pairs of rows, the earlier less the later, [P, K]; those with the first row come first."""
    first, second = np.triu_indices(rows, 1)
    weights = np.zeros((len(first), rows))
    weights[np.arange(len(first)), first], weights[np.arange(len(first)), second] = 1.0, -1.0
    return weights


def root(covariance_NN: Array) -> Array:
    """A root of a covariance, [N, N]; what is negative by rounding or by estimation counts as 0."""
    values, vectors = np.linalg.eigh((covariance_NN + covariance_NN.T) / 2)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))


def _column_root(matrix: ScoreMatrix) -> Array:
    """Root of the correlation between columns of what rows vary by from seed to seed, shrunk where runs are few."""
    columns = matrix.values_KSC.shape[2]
    trained = matrix.groups_K != CONSTANT
    whole = matrix.there_KSC.all(axis=2) & trained[:, None]
    parts = []
    for _, rows in groups_of(matrix.groups_K):
        for seed in range(whole.shape[1]):
            members = [int(row) for row in rows if whole[int(row), seed]]
            if not members:
                continue
            own = np.array([matrix.values_KSC[row][whole[row]].mean(axis=0) for row in members])
            left = matrix.values_KSC[members, seed] - own
            parts.append(left - left.mean(axis=0) if len(members) > 1 else left)
    left_NC = np.concatenate(parts) if parts else np.zeros((0, columns))
    scale_C = np.sqrt((left_NC**2).sum(axis=0))
    if len(left_NC) < 2 or not scale_C.all():
        return np.eye(columns)
    found_CC = (left_NC / scale_C).T @ (left_NC / scale_C)
    share = 2 / (len(left_NC) + 2)
    # Columns that are one and the same, as all averages of a single task are, stay so.
    return root((1 - share) * found_CC + share * (found_CC > 1 - 1e-9))


def _known(variances_KC: Array, groups_K: npt.NDArray[np.int64]) -> Array:
    """With the median of its group where a row has too few seeds for a variance."""
    filled = variances_KC.copy()
    for _, rows in groups_of(groups_K):
        with np.errstate(all="ignore"):
            usual = np.broadcast_to(nanmedian(filled[rows]), filled[rows].shape)
        filled[rows] = np.where(np.isnan(filled[rows]), usual, filled[rows])
    return filled
