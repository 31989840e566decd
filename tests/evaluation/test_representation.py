"""What vectors are like, by hand; and that a study's records hold it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.vectors import representation as vectors
from distilbench.models.model_folder import load_encoder


def units(width: int, seed: int = 0) -> vectors.Array:
    return vectors._unit(np.random.default_rng(seed).normal(size=(len(vectors.sample().texts), width)))


def test_the_sample_is_fixed_and_graded() -> None:
    sample = vectors.sample()
    assert len(sample.gold_P) == len(sample.pairs_P2) == vectors.PAIRS
    assert len(set(sample.texts)) == len(sample.texts) > 300
    assert sample.pairs_P2.max() < len(sample.texts)
    assert (sample.gold_P >= vectors.ALIKE).sum() > 20


def test_cka_by_hand_and_its_invariances() -> None:
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    y = np.array([[1.0], [-1.0], [0.0], [0.0]])
    # x'x = diag(2, 8), y'y = 2, x'y = (2, 0): 4 / (sqrt(68) 2)
    assert vectors.cka(x, y) == pytest.approx(4 / (np.sqrt(68) * 2))
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))
    assert vectors.cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    assert np.isnan(vectors.cka(x, np.ones((4, 1))))


def test_neighbours_by_hand() -> None:
    one = np.array([[1.0, 0.9, 0.1, 0.2], [0.9, 1.0, 0.3, 0.2], [0.1, 0.3, 1.0, 0.8], [0.2, 0.2, 0.8, 1.0]])
    other = one[:, ::-1][::-1].copy()
    assert vectors.neighbour_overlap(one, one, 2) == 1
    # Nearest of one: 1, 0, 3, 2; of the other, seen backwards: 1, 0, 3, 2 too.
    assert vectors.neighbour_overlap(one, other, 1) == 1
    other[0, 2], other[0, 1] = 0.95, 0.1
    assert vectors.neighbour_overlap(one, other, 1) == 0.75


def test_int8_keeps_a_256th() -> None:
    x = units(8)
    step = (x.max(axis=0) - x.min(axis=0)) / 255
    assert (np.abs(vectors.int8(x) - x) <= step / 2 + 1e-12).all()
    assert len(np.unique(vectors.int8(x)[:, 0])) <= 256
    assert (vectors.int8(np.ones((3, 2))) == 1).all()


def test_a_model_beside_itself_and_beside_noise() -> None:
    teacher = units(16)
    same, rotated, noise = (
        vectors.describe(x, teacher)
        for x in (teacher, teacher @ np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0], units(16, 2))
    )
    for name in ("cka", "neighbours", "similarities", "cosine"):
        assert same[name] == pytest.approx(1)
    assert same["sts_asymmetric"] == pytest.approx(same["sts"])
    assert rotated["cka"] == pytest.approx(1)
    assert rotated["similarities"] == pytest.approx(1)
    assert abs(rotated["cosine"]) < 0.3
    assert noise["cka"] < 0.2
    assert noise["neighbours"] < 0.2
    assert abs(noise["anisotropy"]) < 0.01
    # Vectors of one direction: as far from uniform as can be.
    assert vectors.describe(np.ones_like(teacher) / 4, teacher)["uniformity"] == pytest.approx(0)
    narrow = vectors.describe(units(8), teacher)
    assert not {"cosine", "sts_asymmetric"} & set(narrow)
    assert {"sts", "sts_1/2", "sts_1/4", "sts_int8", "sts_binary"} <= set(narrow)


def test_speed_and_size(teacher_folder: Path) -> None:
    model, tokenizer = load_encoder(teacher_folder), load_tokenizer(teacher_folder)
    encoded, found = vectors.encode_timed(model, tokenizer, teacher_folder)
    assert encoded.shape == (len(vectors.sample().texts), 24)
    assert found["bytes"] == sum(path.stat().st_size for path in teacher_folder.rglob("*") if path.is_file())
    assert found["sentences_per_second"] > 0 < found["query_ms"]
