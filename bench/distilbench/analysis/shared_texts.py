"""The part of the error that examples cause together because they share texts.

A bootstrap over examples takes them to be independent. They are not where a pair of texts stands in several tasks, or a
sentence in several pairs. What such examples add to the covariance of scores is the sum, over all of them that share a
text, of the products of their influences on the scores (dyadic-robust variance; Aronow, Samii & Assenova 2015).

Shapes: R runs, N examples of one task, M texts, D scores (runs of all tasks), B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from distilbench.analysis.bootstrap import Array, TaskExamples

Places = npt.NDArray[np.int64]
PLACE = ["task", "split", "example"]
WHOLE = 1500
"""Scores up to which all directions of their covariance are kept; of more, the `KEPT` that vary most."""
KEPT = 400


@dataclass(frozen=True)
class Overlap:
    """How much of a study's examples share texts."""

    examples: int
    """Of which the texts are known."""
    repeated: int
    """Those that stand in the study at least twice, by all of their texts."""
    sharing: int
    """Those that share a text with another."""
    widening: Mapping[str, float] = field(default_factory=dict)
    """Average -> the example part of the error of a difference, over what it would be of independent examples."""


def overlap(texts: pd.DataFrame) -> Overlap:
    """Counts of the examples in a table with the columns first and second, the numbers of their texts."""
    places_N2 = texts[["first", "second"]].to_numpy(dtype=np.int64)
    _, pair_N, times = np.unique(np.sort(places_N2, axis=1), axis=0, return_inverse=True, return_counts=True)
    _, text_N, uses = np.unique(places_N2, return_inverse=True, return_counts=True)
    sharing_N = (uses[text_N.reshape(places_N2.shape)] > 1).any(axis=1)
    return Overlap(len(texts), int((times[pair_N.ravel()] > 1).sum()), int(sharing_N.sum()))


def together(
    known: Mapping[str, Sequence[TaskExamples]], texts: pd.DataFrame, resamples: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Task -> deviations of its runs' scores to be added to those of a bootstrap over examples, [R, B].

    `texts`: task, split, example, first and second, equal numbers for equal texts. Tasks of which an example is not
    there get none.
    """
    at = texts.set_index(PLACE)[["first", "second"]]
    influences: dict[str, tuple[Array, Places]] = {}
    for task, splits in known.items():
        parts = [(influence(split), _places(at, task, split)) for split in splits]
        if all(places is not None for _, places in parts):
            influences[task] = (
                np.concatenate([psi / len(splits) for psi, _ in parts], axis=1),
                np.concatenate([places for _, places in parts if places is not None]),
            )
    if not influences:
        return {}
    # Runs that agree on every example stay equal, to the last digit.
    alike = {task: _alike(psi_RN) for task, (psi_RN, _) in influences.items()}
    distinct = [
        (psi_RN[first], places)
        for (psi_RN, places), (first, _) in zip(influences.values(), alike.values(), strict=True)
    ]
    deviations_DB = _normal(covariance(distinct), resamples, rng)
    found = np.split(deviations_DB, np.cumsum([len(psi_RN) for psi_RN, _ in distinct])[:-1])
    return {task: part_DB[of_R] for part_DB, (task, (_, of_R)) in zip(found, alike.items(), strict=True)}


def covariance(tasks: Sequence[tuple[Array, Places]]) -> Array:
    """What examples that share texts add to the covariance of scores, [D, D]: each task's influences, [R, N], and the
    two texts of each of its examples, [N, 2]."""
    places_L2 = np.concatenate([places for _, places in tasks])
    _, text_L = np.unique(places_L2, return_inverse=True)
    _, pair_L = np.unique(np.sort(places_L2, axis=1), axis=0, return_inverse=True)
    text_L2, pair_L1 = text_L.reshape(places_L2.shape), pair_L.reshape(-1, 1)
    starts = np.cumsum([0, *(len(places) for _, places in tasks)])
    of_texts, of_pairs = [], []
    for (psi_RN, _), start, end in zip(tasks, starts[:-1], starts[1:], strict=True):
        of_texts.append(_summed(psi_RN, text_L2[start:end], int(text_L2.max()) + 1))
        of_pairs.append(_summed(psi_RN, pair_L1[start:end], int(pair_L1.max()) + 1))
    texts_MD, pairs_PD = np.concatenate(of_texts, axis=1), np.concatenate(of_pairs, axis=1)
    # Equal pairs share two texts, and count once.
    found = texts_MD.T @ texts_MD - pairs_PD.T @ pairs_PD
    ends = np.cumsum([0, *(len(psi) for psi, _ in tasks)])
    for (psi_RN, _), start, end in zip(tasks, ends[:-1], ends[1:], strict=True):
        found[start:end, start:end] -= psi_RN @ psi_RN.T
    return np.asarray(found)


def influence(examples: TaskExamples) -> Array:
    """How much each run's score would change by a little more weight of an example, over N, [R, N].

    The derivative of the metric of weighted examples, for weights that sum to 1; its sum over examples is 0.
    """
    values_RN, gold_N = examples.values_RN, examples.gold_N
    count = values_RN.shape[1]
    if gold_N is None:
        return np.asarray((values_RN - values_RN.mean(axis=1, keepdims=True)) / count)
    if examples.classified:
        return np.stack([_of_average_precision(values_N, gold_N == 1) / count for values_N in values_RN])
    gold = _Ranked(gold_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([_of_spearman(_Ranked(values_N), gold) / count for values_N in values_RN])


class _Ranked:
    """Middle ranks of N values, over N and less their mean, and how they answer to the weight of a value."""

    def __init__(self, values_N: Array) -> None:
        self.count = len(values_N)
        self.order_N = np.argsort(values_N, kind="stable")
        ordered_N = values_N[self.order_N]
        self.starts_G = np.flatnonzero(np.concatenate([[True], ordered_N[1:] != ordered_N[:-1]]))
        self.sizes_G = np.diff(self.starts_G, append=self.count)
        middle_G = (self.starts_G + self.sizes_G / 2) / self.count - 0.5
        self.ranks_N = self._back(middle_G)
        self.variance = float(np.mean(self.ranks_N**2))
        self.of_variance_N = self.ranks_N**2 + 2 * self.above(self.ranks_N)

    def above(self, others_N: Array) -> Array:
        """For each value, the mean over examples of others where their value is larger, half where it is equal, [N]."""
        sums_G = np.add.reduceat(others_N[self.order_N], self.starts_G)
        return self._back((sums_G.sum() - np.cumsum(sums_G) + sums_G / 2) / self.count)

    def _back(self, of_groups_G: Array) -> Array:
        found_N = np.empty(self.count)
        found_N[self.order_N] = np.repeat(of_groups_G, self.sizes_G)
        return found_N


def _of_spearman(values: _Ranked, gold: _Ranked) -> Array:
    covariance = float(np.mean(values.ranks_N * gold.ranks_N))
    scale = np.sqrt(values.variance * gold.variance)
    of_covariance_N = values.ranks_N * gold.ranks_N + values.above(gold.ranks_N) + gold.above(values.ranks_N)
    of_scale_N = values.of_variance_N / values.variance + gold.of_variance_N / gold.variance
    found_N = of_covariance_N / scale - covariance / scale * of_scale_N / 2
    return np.asarray(np.nan_to_num(found_N - found_N.mean()))


def _of_average_precision(values_N: Array, true_N: npt.NDArray[np.bool_]) -> Array:
    order_N = np.argsort(-values_N, kind="stable")
    ordered_N, one_N = values_N[order_N], true_N[order_N].astype(np.float64)
    starts_G = np.flatnonzero(np.concatenate([[True], ordered_N[1:] != ordered_N[:-1]]))
    true_G, all_G = np.add.reduceat(one_N, starts_G), np.diff(starts_G, append=len(ordered_N))
    seen_G = np.cumsum(all_G)
    precision_G = np.cumsum(true_G) / seen_G
    # An example counts in the precision of its own step, and of all that come after it.
    per_seen_G = true_G / seen_G
    gained_G, diluted_G = _from_there_on(per_seen_G), _from_there_on(per_seen_G * precision_G)
    group_N = np.repeat(np.arange(len(starts_G)), all_G)
    total = one_N.sum()
    average = float((true_G * precision_G).sum() / total)
    found_N = np.empty(len(values_N))
    found_N[order_N] = one_N * (precision_G + gained_G - average)[group_N] - diluted_G[group_N]
    return np.asarray(found_N * (len(values_N) / total))


def _from_there_on(steps_G: Array) -> Array:
    """Sums over each step and all that follow it."""
    return np.asarray(np.cumsum(steps_G[::-1])[::-1])


def _alike(psi_RN: Array) -> tuple[Places, Places]:
    """The first run of each kind, and the kind of each run, [R]."""
    kinds_R = pd.factorize(pd.Series([psi_N.tobytes() for psi_N in psi_RN], dtype=object))[0]
    return np.unique(kinds_R, return_index=True)[1], np.asarray(kinds_R, dtype=np.int64)


def _summed(psi_RN: Array, places_NK: Places, size: int) -> Array:
    """Sums of influences over the examples at each of `size` places, [size, R]."""
    count, width = places_NK.shape
    columns = np.repeat(np.arange(count), width)
    chosen = csr_array((np.ones(count * width), (places_NK.ravel(), columns)), shape=(size, count))
    return np.asarray(chosen @ psi_RN.T)


def _places(at: pd.DataFrame, task: str, split: TaskExamples) -> Places | None:
    if split.names_N is None:
        return None
    wanted = pd.MultiIndex.from_product([[task], [split.split], split.names_N])
    found = at.index.get_indexer(wanted)
    return None if (found < 0).any() else at.to_numpy(dtype=np.int64)[found]


def _normal(covariance_DD: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Normal deviates with a covariance, less what of it is below 0, which an estimate may be, [D, B]."""
    basis_DK = np.eye(len(covariance_DD))
    if len(covariance_DD) > WHOLE:
        sketch_DK = covariance_DD @ (covariance_DD @ rng.normal(size=(len(covariance_DD), KEPT)))
        basis_DK = np.linalg.qr(sketch_DK)[0]
        covariance_DD = basis_DK.T @ covariance_DD @ basis_DK
    variances_K, directions = np.linalg.eigh((covariance_DD + covariance_DD.T) / 2)
    deviations = directions @ (
        np.sqrt(np.maximum(variances_K, 0))[:, None] * rng.normal(size=(len(variances_K), resamples))
    )
    return np.asarray(basis_DK @ deviations)
