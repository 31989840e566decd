"""The family of contrasts: its critical value against known distributions, and what may move a verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, studentized_range

from distilbench.analysis import stats
from distilbench.analysis.moderated import ALONE, CONSTANT, ScoreMatrix
from distilbench.analysis.simultaneous import family, pairs
from tests.reporting.planted import deviate


def matrix(values: np.ndarray, example_sd: float = 0.0, groups: np.ndarray | None = None) -> ScoreMatrix:
    """Examples that are one's own to each row and column."""
    rows, _, columns = values.shape
    covariance = (example_sd**2 * np.eye(rows * columns)).reshape(rows, columns, rows, columns)
    return ScoreMatrix(values, covariance, np.zeros(rows, dtype=np.int64) if groups is None else groups)


@pytest.mark.parametrize(("rows", "seeds"), [(3, 200), (8, 60)])
def test_many_seeds_give_the_studentized_range_of_tukey(rows: int, seeds: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, seeds, 1))
    found = family(matrix(values), pairs(rows), 0.05, np.random.default_rng(1), 4000)
    # Tukey's critical value is of the range; each pair's own statistic is by the root of two smaller.
    assert found.critical == pytest.approx(studentized_range.ppf(0.95, rows, 1e5) / np.sqrt(2), rel=0.04)


def test_one_contrast_of_examples_alone_is_a_normal_test() -> None:
    values = np.tile([[[0.5]], [[0.4]]], (1, 3, 1))
    found = family(matrix(values, 0.02, np.array([CONSTANT] * 2)), pairs(2), 0.05, np.random.default_rng(0), 8000)
    [[item]] = found.estimates
    assert item is not None and item.seeds == 1 and item.seed_variance == 0
    assert found.critical == pytest.approx(1.96, abs=0.06)
    assert found.adjusted(deviate(item)) == pytest.approx(2 * norm.sf(0.1 / np.hypot(0.02, 0.02)), abs=0.002)


def test_a_column_that_is_there_twice_costs_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(4, 5, 1))
    once = family(matrix(values), pairs(4), 0.05, np.random.default_rng(0))
    twice = family(matrix(np.repeat(values, 3, axis=2)), pairs(4), 0.05, np.random.default_rng(0))
    # The simulated studies are others, but the distribution is the same.
    assert twice.critical == pytest.approx(once.critical, rel=0.05)


def test_more_comparisons_raise_the_critical_value_and_nothing_else() -> None:
    values = np.random.default_rng(3).normal(size=(6, 5, 2))
    few = family(matrix(values), pairs(6)[:2], 0.05, np.random.default_rng(0))
    many = family(matrix(values), pairs(6), 0.05, np.random.default_rng(0))
    assert many.estimates[:2] == few.estimates
    assert many.critical > few.critical
    assert many.single_alpha < few.single_alpha < 0.05


def test_a_seed_that_a_row_lacks_is_left_out_of_its_contrasts_only() -> None:
    values = np.random.default_rng(4).normal(size=(4, 5, 1))
    lacking = values.copy()
    lacking[3, 2] = np.nan
    whole, part = (family(matrix(given), pairs(4), 0.05, np.random.default_rng(0)) for given in (values, lacking))
    seeds = [line[0].seeds for line in part.estimates if line[0] is not None]
    assert seeds == [5, 5, 4, 5, 4, 4]
    for before, after in zip(whole.estimates, part.estimates, strict=True):
        assert before[0] is not None and after[0] is not None
        if after[0].seeds == 5:
            assert after[0].mean == before[0].mean
            assert after[0].seed_variance == pytest.approx(before[0].seed_variance, rel=0.5)


def test_no_common_seed_gives_no_estimate_and_one_seed_gives_no_error() -> None:
    values = np.random.default_rng(5).normal(size=(2, 2, 1))
    values[0, 0] = values[1, 1] = np.nan
    apart = family(matrix(values), pairs(2), 0.05, np.random.default_rng(0))
    assert apart.estimates == [[None]] and apart.adjusted(10.0) == 1.0
    single = family(matrix(values[:1].repeat(2, axis=0) * [[[1.0]], [[2.0]]]), pairs(2), 0.05, np.random.default_rng(0))
    [[item]] = single.estimates
    assert item is not None and item.seeds == 1 and np.isnan(item.error)


def test_a_row_of_its_own_has_no_part_in_what_others_vary_by() -> None:
    values = np.random.default_rng(6).normal(size=(5, 4, 1))
    groups = np.array([0, 0, 0, 0, ALONE])
    calm = family(matrix(values, groups=groups), pairs(5), 0.05, np.random.default_rng(0))
    values[4] *= 100
    wild = family(matrix(values, groups=groups), pairs(5), 0.05, np.random.default_rng(0))
    for line, before, after in zip(pairs(5), calm.estimates, wild.estimates, strict=True):
        if line[4] == 0:
            assert before == after


EQUAL, WILD = (1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 3, 8)


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [
        (3, WILD),
        (5, EQUAL),
        pytest.param(3, EQUAL, marks=pytest.mark.thorough),
        pytest.param(5, WILD, marks=pytest.mark.thorough),
    ],
)
def test_equal_rows_are_told_apart_in_five_percent_of_studies(seeds: int, spread: tuple[float, ...]) -> None:
    rng, false = np.random.default_rng(8), 0
    scale = np.array(spread)[:, None, None]
    for _ in range(300):
        values = scale * rng.normal(size=(6, seeds, 2)) + 0.3 * rng.normal(size=(6, 1, 2))
        found = family(matrix(values, 0.3), pairs(6), 0.05, rng, 300)
        false += any(
            found.adjusted(abs(deviate(item))) <= 0.05 for line in found.estimates for item in line if item is not None
        )
    # Three standard errors of 300 studies are 3.8 %.
    assert false / 300 <= 0.088


def test_a_moderated_variance_keeps_a_planted_difference_findable() -> None:
    rng, seen = np.random.default_rng(9), 0
    for _ in range(60):
        values = rng.normal(size=(6, 5, 1))
        values[0] += 3.5
        found = family(matrix(values), pairs(6), 0.05, rng, 300)
        item = found.estimates[0][0]
        assert isinstance(item, stats.Estimate)
        seen += found.adjusted(abs(deviate(item))) <= 0.05
    assert seen > 40
