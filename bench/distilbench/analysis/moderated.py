"""Scores of runs, and contrasts between rows with variances between seeds that few seeds can give.

Shapes: K rows, S seeds, C columns of scores, P contrasts; X any shape before these. What a row lacks is not-a-number.

The variance of a contrast is drawn towards what the rows of the study vary by in the middle, as in limma (Smyth 2004,
doi:10.2202/1544-6115.1027), but by a fixed weight: half of the degrees of freedom are the contrast's own and half are
the prior's, so that other rows decide no more than half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from distilbench.analysis.stats import Array, chi2_density, chi2_median

CONSTANT, ALONE = -2, -1
"""Groups of a row that no seed changes, and of one that is trained like no other."""
TINY = 1e-300
REWEIGHTINGS = 4


@dataclass(frozen=True)
class ScoreMatrix:
    """What the contrasts are made from."""

    values_KSC: Array
    """Scores of the runs; those of a row that no seed changes stand at every seed."""
    examples_KCKC: Array
    """Covariance of the rows' scores over the choice of examples, that of seeds with examples taken out."""
    groups_K: npt.NDArray[np.int64]
    """Rows that were trained alike share a number from 0; else `CONSTANT` or `ALONE`."""

    @cached_property
    def there_KSC(self) -> npt.NDArray[np.bool_]:
        """Which row has a score at which seed."""
        return np.isfinite(self.values_KSC)

    def example_variances(self, weights_PK: Array) -> Array:
        """Of contrasts, [P, C]."""
        rows, columns = self.examples_KCKC.shape[:2]
        by_column = [((weights_PK @ self.examples_KCKC[:, c, :, c]) * weights_PK).sum(axis=1) for c in range(columns)]
        return np.maximum(np.stack(by_column, axis=1), 0) if rows else np.zeros((0, columns))


@dataclass(frozen=True)
class ModeratedContrasts:
    """Contrasts of rows, with who was run with which seed: all that does not depend on the scores."""

    weights_PK: Array
    there_KSC: Array
    groups_K: npt.NDArray[np.int64]
    common_PSC: Array
    """1 where every row of a contrast has the seed."""
    seeds_PC: Array
    prior_freedom_P: Array
    """Degrees of freedom that the prior counts for; 0 without one."""

    @classmethod
    def of(cls, matrix: ScoreMatrix, weights_PK: Array) -> ModeratedContrasts:
        there_KSC = matrix.there_KSC.astype(np.float64)
        absent_PSC = np.einsum("pk,ksc->psc", (weights_PK != 0).astype(np.float64), 1 - there_KSC)
        common_PSC = (absent_PSC == 0).astype(np.float64)
        varying_K = matrix.groups_K != CONSTANT
        constant_P = ~((weights_PK != 0) & varying_K).any(axis=1)
        seeds_PC = common_PSC.sum(axis=1)
        seeds_PC[constant_P] = np.minimum(seeds_PC[constant_P], 1)
        freedom_K = np.zeros(len(there_KSC))
        for group, rows in groups_of(matrix.groups_K):
            freedom_K[rows] = _prior_freedom(there_KSC[rows]) if group >= 0 else 0.0
        # A contrast with a row that is trained like no other takes the prior of those that it is compared with.
        used_PK = (weights_PK != 0) & (matrix.groups_K >= 0)
        freedom_P = np.where(used_PK, freedom_K, -np.inf).max(axis=1, initial=0.0)
        return cls(weights_PK, there_KSC, matrix.groups_K, common_PSC, seeds_PC, freedom_P)

    def variances(self, values_XKSC: Array) -> Array:
        """Variance of each row between seeds, [..., K, C]; that of a seed for all of a group is taken out."""
        there, count_KC = self.there_KSC, self.there_KSC.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_XKC = (values_XKSC * there).sum(axis=-2) / count_KC
            left_XKSC = np.where(there > 0, values_XKSC - mean_XKC[..., None, :], 0.0)
            found_XKC = np.full(mean_XKC.shape, np.nan)
            for group, rows in groups_of(self.groups_K):
                part, present = left_XKSC[..., rows, :, :], there[rows]
                found = (part**2).sum(axis=-2) / (count_KC[rows] - 1)
                if group >= 0 and len(rows) > 1:
                    found = _without_seeds(part, present, count_KC[rows] - 1)
                found_XKC[..., rows, :] = found
        found_XKC[..., self.groups_K == CONSTANT, :] = 0.0
        found_XKC[..., (count_KC < 2) & (self.groups_K != CONSTANT)[:, None]] = np.nan
        return found_XKC

    def moderated(self, values_XKSC: Array) -> tuple[Array, Array, Array]:
        """Mean of each contrast, variance of the mean between seeds, and its degrees of freedom, [..., P, C] each."""
        count_PC, runs_PC = np.maximum(self.seeds_PC, 1), np.maximum(self.common_PSC.sum(axis=1), 1)
        total, squares = np.zeros(()), np.zeros(())
        # By seeds: an array of all contrasts with all seeds would be many times as large.
        for seed in range(values_XKSC.shape[-2]):
            part = weighted(self.weights_PK, values_XKSC[..., seed, :]) * self.common_PSC[:, seed]
            total, squares = total + part, squares + part**2
        mean = total / runs_PC
        own = np.maximum(squares - runs_PC * mean**2, 0) / np.maximum(count_PC - 1, 1)
        own_freedom_PC = count_PC - 1
        prior_freedom_P = self.prior_freedom_P[:, None]
        if (self.prior_freedom_P > 0).any():
            prior = np.nan_to_num(weighted(self.weights_PK**2, self._prior(values_XKSC)))
            total_PC = prior_freedom_P + own_freedom_PC
            with np.errstate(invalid="ignore", divide="ignore"):
                variance = (prior_freedom_P * prior + own_freedom_PC * own) / total_PC
        else:
            total_PC, variance = own_freedom_PC + 0.0 * prior_freedom_P, own
        variance = np.where(total_PC > 0, variance, np.nan)
        varying_P = ((self.weights_PK != 0) & (self.groups_K != CONSTANT)).any(axis=1)
        variance = np.where(varying_P[:, None], variance, 0.0)
        # Twins, which agree in every run, do not vary however the others do.
        alike = (squares == 0) & (count_PC > 1)
        return mean, np.where(alike, 0.0, variance / count_PC), np.maximum(total_PC, 1)

    def _prior(self, values_XKSC: Array) -> Array:
        """What a row would vary by if it were like those in the middle of its group, [..., K, C]."""
        found_XKC, count_KC = self.variances(values_XKSC), self.there_KSC.sum(axis=1)
        for group, rows in groups_of(self.groups_K):
            if group < 0:
                continue
            middle_KC = chi2_median(np.maximum(count_KC[rows] - 1, 1)) / np.maximum(count_KC[rows] - 1, 1)
            with np.errstate(all="ignore"):
                usual = nanmedian(found_XKC[..., rows, :] / middle_KC)
            found_XKC[..., rows, :] = usual[..., None, :]
        return found_XKC


def row_variances(matrix: ScoreMatrix, values_XKSC: Array) -> Array:
    """Variance of each row between seeds, [..., K, C], of scores that are there where the matrix has some."""
    return ModeratedContrasts.of(matrix, np.zeros((1, len(matrix.groups_K)))).variances(values_XKSC)


def weighted(weights_PK: Array, values_XKC: Array) -> Array:
    """Contrasts of rows, [..., P, C]. Most have two rows of many, and skip the others."""
    first = np.moveaxis(values_XKC, -2, 0)
    found = csr_array(weights_PK) @ first.reshape(len(first), -1)
    return np.moveaxis(np.asarray(found).reshape(len(weights_PK), *first.shape[1:]), 0, -2)


def _without_seeds(left_XKSC: Array, there_KSC: Array, freedom_KC: Array) -> Array:
    """Variances of rows between seeds, [..., K, C], without what a seed does to all of them.

    That is a weighted mean of the rows: one that varies much gets little weight, for it would be in all others.
    """
    weights = np.ones(left_XKSC.shape[:-2] + left_XKSC.shape[-1:])
    for _ in range(1 if len(there_KSC) < 3 else REWEIGHTINGS):
        weights_XKSC = weights[..., None, :] * there_KSC
        total = weights_XKSC.sum(axis=-3, keepdims=True)
        of_seed = (weights_XKSC * left_XKSC).sum(axis=-3, keepdims=True) / np.where(total > 0, total, 1.0)
        kept = 1 - weights / weights.sum(axis=-2, keepdims=True)
        found: Array = (((left_XKSC - of_seed) * there_KSC) ** 2).sum(axis=-2) / freedom_KC / kept
        usual = nanmedian(np.where(freedom_KC > 0, found, np.nan))[..., None, :]
        weights = 1 / np.maximum(np.nan_to_num(np.maximum(found, usual), nan=np.inf), TINY)
    return found


def nanmedian(values_XKC: Array) -> Array:
    """Over rows, [..., C]; not-a-number where no row has a value."""
    unknown = np.asarray(np.isnan(values_XKC).all(axis=-2))
    whole = np.where(unknown[..., None, :], 0.0, values_XKC)
    middle = np.nanmedian(whole, axis=-2) if np.isnan(whole).any() else np.median(whole, axis=-2)
    return np.where(unknown, np.nan, middle)


def groups_of(groups_K: npt.NDArray[np.int64]) -> list[tuple[int, npt.NDArray[np.int64]]]:
    return [(int(group), np.flatnonzero(groups_K == group)) for group in np.unique(groups_K)]


def _prior_freedom(there_KSC: Array) -> float:
    counts = there_KSC.all(axis=2).sum(axis=1)
    return prior_freedom(counts[counts > 1] - 1.0)


def prior_freedom(freedom_K: Array) -> float:
    """Degrees of freedom of the prior of some rows: as many as a row has of its own, or as their median is worth.

    The median of n variances with m degrees of freedom has the relative variance 1 / (4 n (median * density there)^2),
    which is that of a variance with 8 n (median * density)^2 degrees of freedom; two rows' worth pay for the means.
    """
    if len(freedom_K) < 3:
        return 0.0
    own = float(np.median(freedom_K))
    middle = float(chi2_median(own))
    return min(own, 8 * (middle * float(chi2_density(middle, own))) ** 2 * (len(freedom_K) - 2))
