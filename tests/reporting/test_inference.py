"""The statistics against scipy, against worked values, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import BLOCKS, TaskExamples, _draw, spearman
from distilbench.analysis.examples import replicates
from tests.reporting.planted import deviate


def pairs(count: int, runs: int, ties: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 11, count) / 2 if ties != "none" else rng.normal(size=count)
    values = gold + rng.normal(size=(runs, count)) * 3
    if ties == "many":
        values = np.round(values)
    elif ties == "few":
        values[:, : count // 10] = values.max()
    return values, gold


@pytest.mark.parametrize("count", [3, BLOCKS - 1, BLOCKS, 2 * BLOCKS + 7])
@pytest.mark.parametrize("ties", ["none", "few", "many"])
def test_spearman_of_every_resample_is_scipys(count: int, ties: str) -> None:
    values, gold = pairs(count, 3, ties)
    counts = _draw(count, 20, np.random.default_rng(1))
    assert (counts.sum(axis=0) == count).all()
    found = spearman(values, gold, counts)
    for resample in range(20):
        chosen = np.repeat(np.arange(count), counts[:, resample].astype(int))
        for run in range(3):
            sample, against = values[run][chosen], gold[chosen]
            if np.ptp(sample) and np.ptp(against):
                expected = scipy_stats.spearmanr(sample, against).statistic
                assert found[run, resample] == pytest.approx(expected, abs=1e-5)
            else:
                assert not np.isfinite(found[run, resample]) or abs(found[run, resample]) < 1e-3


def test_the_metric_on_all_examples() -> None:
    values, gold = pairs(200, 2, "few")
    expected = [scipy_stats.spearmanr(row, gold).statistic for row in values]
    np.testing.assert_allclose(TaskExamples(values, gold).metric(), expected, atol=1e-6)
    np.testing.assert_allclose(TaskExamples(values, None).metric(), values.mean(axis=1))


def test_the_bootstrap_error_of_a_mean_and_of_a_correlation() -> None:
    rng = np.random.default_rng(2)
    values, gold = pairs(400, 2, "none")
    means = TaskExamples(values, None).replicates(4000, rng)
    np.testing.assert_allclose(means.std(axis=1), values.std(axis=1) / 20, rtol=0.05)
    found = TaskExamples(values, gold).replicates(4000, rng)
    chosen = np.random.default_rng(3).integers(0, 400, (1000, 400))
    for run in range(2):
        theirs = [scipy_stats.spearmanr(values[run][rows], gold[rows]).statistic for rows in chosen]
        assert found[run].std() == pytest.approx(float(np.std(theirs)), rel=0.1)


def test_resamples_are_shared_by_runs_and_repeatable() -> None:
    values, gold = pairs(100, 1, "few")
    twice = TaskExamples(np.concatenate([values, values]), gold)
    one, again = (twice.replicates(300, np.random.default_rng(5)) for _ in range(2))
    assert one.shape == (2, 300)
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(one, again)


def simulated(seeds: int, examples: int, rng: np.random.Generator, **sd: float) -> stats.Estimate:
    """Differences of two methods: a seed's part, an example's part, and what is neither's."""
    per_seed = rng.normal(0, sd.get("seed", 0.0), seeds)[:, None]
    per_example = rng.normal(0, sd.get("example", 0.0), examples)[None, :]
    both = rng.normal(0, sd.get("both", 0.0), (seeds, examples))
    values = sd.get("mean", 0.0) + per_seed + per_example + both
    replicates = TaskExamples(values, None).replicates(200, rng)
    return stats.estimate(values.mean(axis=1), replicates)


@pytest.mark.parametrize(
    "sd",
    [
        {"seed": 1.0},
        {"example": 10.0, "both": 1.0},
        {"seed": 1.0, "example": 10.0, "both": 10.0},
        {"both": 10.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_cover_and_equal_methods_are_told_apart_seldom(sd: dict[str, float], seeds: int) -> None:
    rng = np.random.default_rng(7)
    found = [simulated(seeds, 100, rng, **sd) for _ in range(800)]
    covered = np.mean([abs(item.mean) <= item.half_width() for item in found])
    # With 800 simulations the share has a standard error of 0.8 points.
    assert 0.93 <= covered <= 0.995


def test_power_is_as_predicted() -> None:
    rng = np.random.default_rng(8)
    exact = stats.Estimate(0.0, 5, 1.0 / 5, 10.0**2 / 100)
    difference = exact.detectable(0.05)
    found = [simulated(5, 100, rng, seed=1.0, example=10.0, mean=difference) for _ in range(600)]
    assert np.mean([abs(item.mean) > item.half_width() for item in found]) == pytest.approx(stats.POWER, abs=0.05)


def test_an_estimate_by_hand() -> None:
    # Seeds 1, 2, 3: variance 1, of the mean 1/3. No examples' part: t(2).
    item = stats.estimate(np.array([1.0, 2.0, 3.0]), np.tile([[1.0], [2.0], [3.0]], (1, 9)))
    assert (item.mean, item.seeds, item.freedom) == (2.0, 3, 2.0)
    assert item.error == pytest.approx(1 / math.sqrt(3))
    assert item.half_width() == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    for bound in (-5, 0, 5):
        theirs = scipy_stats.ttest_1samp([1.0, 2.0, 3.0], bound)
        parts = (item.seed_variance, item.freedom, item.example_variance)
        deviate = stats.normal_deviate(*map(np.array, (item.mean - bound, *parts)))
        assert 2 * scipy_stats.norm.sf(deviate) == pytest.approx(theirs.pvalue, rel=1e-3)


def test_what_is_shared_by_seeds_and_examples_counts_once() -> None:
    rng = np.random.default_rng(9)
    # Pure interaction: the variance of the mean is 1 / (seeds x examples), however it is split.
    found = [simulated(4, 50, rng, both=1.0) for _ in range(400)]
    assert np.mean([item.error**2 for item in found]) == pytest.approx(1 / 200, rel=0.15)


def test_one_seed_has_no_error_and_a_constant_has_only_examples() -> None:
    one = stats.estimate(np.array([0.5]), np.array([[0.4, 0.6]]))
    assert math.isnan(one.error)
    teacher = stats.fixed(0.5, np.array([0.4, 0.6]))
    assert teacher.error == pytest.approx(math.sqrt(0.02))
    assert teacher.half_width() == pytest.approx(1.959964 * math.sqrt(0.02), rel=1e-5)


def test_equal_runs_are_equal_beyond_doubt() -> None:
    item = stats.estimate(np.zeros(3), np.zeros((3, 50)))
    assert stats.is_exactly_zero(item)
    assert item.half_width() == 0.0


def test_more_seeds_help_only_where_seeds_are_the_cause() -> None:
    seeds = stats.Estimate(0.1, 3, 0.01, 0.0)
    needed = seeds.seeds_needed(0.1, 0.05)
    assert needed is not None
    assert (
        stats.with_seeds(seeds, needed).detectable(0.05) <= 0.1 < stats.with_seeds(seeds, needed - 1).detectable(0.05)
    )
    assert stats.Estimate(0.1, 3, 0.01, 0.01).seeds_needed(0.1, 0.05) is None


@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.0, 29.0, math.inf])
@pytest.mark.parametrize("variances", [(1.0, 0.0), (1.0, 1.0), (0.01, 1.0), (1.0, 0.01), (0.0, 1.0)], ids=str)
def test_the_normal_deviate_is_that_of_the_interval_which_just_reaches(
    freedom: float, variances: tuple[float, float]
) -> None:
    item = stats.Estimate(0.0, 3, *variances, freedom)
    for level in (0.1, 0.5, 0.95, 0.999, 1 - 1e-8):
        reaching = stats.shifted(item, item.half_width(level))
        assert deviate(reaching) == pytest.approx(scipy_stats.norm.ppf((1 + level) / 2), rel=2e-3)
        assert deviate(stats.negated(reaching)) == -deviate(reaching)
    squares = [scipy_stats.t(min(freedom, 1e9)).ppf(0.975) ** 2 * variances[0], 1.959964**2 * variances[1]]
    assert item.half_width() == pytest.approx(math.sqrt(sum(squares)), rel=1e-5)


def test_the_highest_deviate_of_many_is_found_without_the_others() -> None:
    rng = np.random.default_rng(4)
    distance = rng.normal(size=(60, 30, 4))
    of_seeds, of_examples = rng.chisquare(3, distance.shape) * 0.1, rng.random((30, 4))
    freedom = rng.integers(1, 5, (30, 4)).astype(np.float64)
    expected = stats.normal_deviate(distance, of_seeds, freedom, of_examples).max(axis=(1, 2))
    np.testing.assert_array_equal(stats.highest_deviate(distance, of_seeds, freedom, of_examples), expected)


def test_probability_of_improvement_and_interquartile_mean() -> None:
    one, other = np.array([[3.0, 1.0], [5.0, 1.0]]), np.array([[4.0, 1.0], [2.0, 1.0]])
    # First task: 3 > 2, 5 > 4, 5 > 2 of 4 pairs; second: all ties.
    assert stats.improvement(one, other) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert stats.interquartile_mean(np.array([9.0, 1.0, 2.0, 3.0])) == pytest.approx(2.5)
    values = np.random.default_rng(0).normal(size=40)
    assert stats.interquartile_mean(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))


def test_resamples_without_a_score_are_left_to_the_others() -> None:
    """Of three pairs, one resample in nine has one pair alone, and no correlation."""
    examples = TaskExamples(np.array([[0.1, 0.5, 0.9], [0.3, 0.2, 0.8]]), np.array([1.0, 3.0, 5.0]))
    assert np.isnan(examples.replicates(500, np.random.default_rng(1))).any()

    found = replicates({"few": [examples]}, 500, np.random.default_rng(1))["few"]

    assert found.shape == (2, 500) and np.isfinite(found).all()
