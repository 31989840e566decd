"""The information plane's two measures: by hand, at their limits, and in a training's response."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from distilbench.training.dev.information_plane import FEWEST, Array, Plane, alignment, centred_kernel, nce_bound


def gaussian(count: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


def test_the_kernel_is_the_textbooks() -> None:
    x = gaussian(12, 3, 0)
    squared = squareform(pdist(x, "sqeuclidean"))
    centring = np.eye(12) - 1 / 12
    expected = centring @ np.exp(-squared / (2 * np.median(pdist(x, "sqeuclidean")))) @ centring
    assert centred_kernel(x) == pytest.approx(expected, abs=1e-12)


def test_hsic_is_one_for_the_same_geometry_and_falls_with_the_sample_for_independence() -> None:
    rotation, _ = np.linalg.qr(gaussian(4, 4, 1))
    x = gaussian(400, 4, 2)
    assert alignment(centred_kernel(x), centred_kernel(3 * x @ rotation + 1)) == pytest.approx(1)
    found = [
        alignment(centred_kernel(gaussian(count, 4, 3)), centred_kernel(gaussian(count, 4, 4)))
        for count in (100, 400, 1600)
    ]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_the_bound_stays_below_the_mutual_information_of_gaussians(correlation: float) -> None:
    """In closed form, that of k independent pairs of correlation r is -k/2 log(1 - r^2)."""
    x, noise = gaussian(1500, 6, 5), gaussian(1500, 6, 6)
    y = correlation * x + np.sqrt(1 - correlation**2) * noise
    truth = -3 * np.log(1 - correlation**2)
    assert 0.3 * truth < nce_bound(x, y) < truth + 0.1


def test_the_bound_of_independent_vectors_is_nothing_and_of_equal_ones_nearly_the_limit() -> None:
    x, other = gaussian(900, 8, 7), gaussian(900, 8, 8)
    assert -0.3 < nce_bound(x, other) < 0.05
    assert np.log(300) - 0.2 < nce_bound(x, 2 * x) <= np.log(300)


def test_neither_measure_depends_on_the_order_of_the_sentences_or_their_scale() -> None:
    x, y = gaussian(300, 5, 9), gaussian(300, 7, 10)
    y[:, :5] += x
    plane = Plane(y, y[:, :3])
    placed, scaled = plane.place(x), plane.place(7 * x)
    assert placed == pytest.approx(scaled, rel=1e-9)
    order = np.random.default_rng(0).permutation(300)
    mixed = Plane(y[order], y[order, :3]).place(x[order])
    assert [mixed[name] for name in ("hsic_teacher", "hsic_input")] == pytest.approx(
        [placed[name] for name in ("hsic_teacher", "hsic_input")]
    )


def test_vectors_that_do_not_vary_have_no_place() -> None:
    y = gaussian(200, 4, 11)
    assert Plane(y, y).place(np.ones((200, 3))) == {}
    assert Plane(y, y).place(np.full((200, 3), np.nan)) == {}
    assert Plane(y[: FEWEST - 1], y[: FEWEST - 1]).place(y[: FEWEST - 1]) == {}
