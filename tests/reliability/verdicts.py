"""How often verdicts are wrong: simulated studies drawn from the real runs of one.

    python -m tests.reliability.verdicts results/minilm-50k --simulations 400

New runs of a method are its mean over seeds plus random mixtures of its seeds' deviations, which vary and covary from
example to example as the real ones do; every simulated study draws its examples anew. In the first kind of study all
methods are copies of one; in the second, one of them is shifted towards a real, worse method until the true difference
is what the design should find with a probability of 80 %, or all of the way to that method where that is less. Prints
JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats as scipy_stats

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array, Counts, TaskExamples
from distilbench.analysis.examples import aligned
from distilbench.analysis.frame import ALPHA, make_study, row_names
from distilbench.records.frames import read_examples
from distilbench.records.record import read_study

METHODS, RESAMPLES = 4, 200
SIZING, HALVINGS = 25, 8
"""Simulated studies for, and halvings in, the search for a difference of the right size."""


@dataclass(frozen=True)
class Population:
    """What runs of one method give on all examples, per task."""

    mean: list[Array]
    """[N] for each task."""
    deviations: list[Array]
    """[S, N] for each task, scaled so that mixtures with independent normal weights have the seeds' covariance."""
    gold: list[Array | None]

    def runs(self, count: int, rng: np.random.Generator) -> list[Array]:
        """Values of new runs, [count, N] for each task."""
        weights = rng.normal(size=(count, len(self.deviations[0])))
        return [mean + weights @ part for mean, part in zip(self.mean, self.deviations, strict=True)]

    def towards(self, other: Population, share: float) -> Population:
        """The same seeds' deviations about a mean that lies between the two."""
        mixed = [(1 - share) * mine + share * theirs for mine, theirs in zip(self.mean, other.mean, strict=True)]
        return Population(mixed, self.deviations, self.gold)

    def score(self, count: int = 50) -> float:
        """The average score of many runs on all examples."""
        values = self.runs(count, np.random.default_rng(0))
        tasks = [TaskExamples(part, gold).metric().mean() for part, gold in zip(values, self.gold, strict=True)]
        return float(np.mean(tasks))


def populations(folder: Path) -> dict[str, Population]:
    """Label -> population, of the methods with more than one seed."""
    study = make_study(folder.name, read_study(folder))
    records = [study.records[str(run_id)] for run_id in study.scores.index]
    tasks = [split for splits in aligned(read_examples(records, folder), study.scores).values() for split in splits]
    keys = study.runs["key"].reindex(study.scores.index).to_numpy()
    found = {}
    for key, name in row_names(study, "method").items():
        places = np.flatnonzero(keys == key)
        if len(places) > 1:
            values = [task.values_RN[places] for task in tasks]
            means = [part.mean(axis=0) for part in values]
            scale = np.sqrt(len(places) - 1)
            deviations = [(part - mean) / scale for part, mean in zip(values, means, strict=True)]
            found[name] = Population(means, deviations, [task.gold_N for task in tasks])
    return found


@dataclass(frozen=True)
class Pair:
    """A difference with its interval, and as it is tested."""

    shown: stats.Estimate
    tested: stats.Estimate

    def covers(self, truth: float) -> bool:
        return abs(self.shown.mean - truth) <= self.shown.half_width()


def study_and_resamples(count: int, rng: np.random.Generator) -> Counts:
    """How often each of some examples is in a new study, and in each of its resamples, [N, 1 + B]."""
    study_N = rng.integers(0, count, count)
    resamples_BN = study_N[rng.integers(0, count, (RESAMPLES, count))]
    drawn = [study_N, *resamples_BN]
    return np.stack([np.bincount(part, minlength=count) for part in drawn], axis=1).astype(np.float32)


def differences(methods: list[Population], seeds: int, rng: np.random.Generator) -> list[Pair]:
    """One simulated study: the estimated difference of every pair."""
    drawn = [method.runs(seeds, rng) for method in methods]
    values, replicates = [], []
    for task, gold in enumerate(methods[0].gold):
        examples = TaskExamples(np.concatenate([runs[task] for runs in drawn]), gold)
        found = examples.counted(study_and_resamples(examples.values_RN.shape[1], rng))
        found = found.reshape(len(methods), seeds, 1 + RESAMPLES)
        values.append(found[..., 0])
        replicates.append(found[..., 1:])
    value, replicate = np.mean(values, axis=0), np.mean(replicates, axis=0)
    variance, freedom = stats.residual_variance(value)
    shown = [
        stats.estimate(value[a] - value[b], replicate[a] - replicate[b])
        for a, b in combinations(range(len(methods)), 2)
    ]
    return [Pair(item, item.steadied(2 * variance / seeds, freedom, alike=False)) for item in shown]


def equal_methods(method: Population, seeds: int, simulations: int, rng: np.random.Generator) -> dict[str, float]:
    """Studies of copies of one method."""
    studies = [differences([method] * METHODS, seeds, rng) for _ in range(simulations)]
    flat = [item for found in studies for item in found]
    judged = [stats.holm([item.tested.p_differs() for item in found]) for found in studies]
    return {
        "false_verdict_in_a_study": float(np.mean([min(p_values) < ALPHA for p_values in judged])),
        "false_alarm_in_a_pair_unadjusted": float(np.mean([item.tested.p_differs() < ALPHA for item in flat])),
        "coverage_of_95_percent": float(np.mean([item.covers(0) for item in flat])),
        "median_detectable_points": float(np.median([100 * item.tested.detectable(ALPHA) for item in flat])),
    }


def power(item: stats.Estimate, difference: float) -> float:
    """Probability with which a two-sided test finds a true difference."""
    distribution = scipy_stats.t(min(item.freedom, 1e9))
    return float(distribution.cdf(abs(difference) / item.error - distribution.ppf(1 - ALPHA / 2)))


def planted_difference(
    one: Population, worse: Population, seeds: int, simulations: int, rng: np.random.Generator
) -> dict[str, float]:
    """Studies of a worse method and of copies of one; the first pair is looked at."""

    def study(share: float) -> list[Population]:
        return [one.towards(worse, share), *[one] * (METHODS - 1)]

    def is_found(share: float) -> bool:
        found = [differences(study(share), seeds, rng)[0].tested.detectable(ALPHA) for _ in range(SIZING)]
        return one.score() - study(share)[0].score() > float(np.median(found))

    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (low, share) if is_found(share) else (share, high)
    planted = study(high)
    truth = planted[0].score() - one.score()
    pairs = [differences(planted, seeds, rng)[0] for _ in range(simulations)]
    found = [pair.tested for pair in pairs]
    return {
        "true_points": 100 * truth,
        "predicted_power": float(np.mean([power(item, truth) for item in found])),
        "power": float(np.mean([item.p_differs() < ALPHA and item.mean < 0 for item in found])),
        "wrong_direction": float(np.mean([item.p_differs() < ALPHA and item.mean > 0 for item in found])),
        "coverage_of_95_percent": float(np.mean([pair.covers(truth) for pair in pairs])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a study with two seeds or more")
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", help="those that studies of equal methods are made of (default: all)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    found = populations(arguments.results.resolve())
    ranked = sorted(found, key=lambda name: -found[name].score())
    if unknown := set(arguments.methods or []) - set(ranked):
        parser.error(f"no method {sorted(unknown)}; there are {ranked}")
    outcome = {
        "simulations": arguments.simulations,
        "seeds": arguments.seeds,
        "methods_in_a_study": METHODS,
        "equal": {
            name: equal_methods(found[name], arguments.seeds, arguments.simulations, rng)
            for name in arguments.methods or ranked
        },
        "planted": planted_difference(found[ranked[0]], found[ranked[-1]], arguments.seeds, arguments.simulations, rng),
    }
    sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
