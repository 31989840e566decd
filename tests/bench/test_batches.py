"""Batch order is a pure function of seed, lengths and batch size."""

from __future__ import annotations

import numpy as np
import pytest

from bench.batches import BatchOrder

LENGTHS = np.random.default_rng(0).integers(3, 40, size=1000)


def test_an_epoch_visits_every_sentence_at_most_once_and_drops_less_than_a_batch() -> None:
    order = BatchOrder(LENGTHS, 64, seed=1)
    for epoch in range(2):
        rows = np.concatenate(
            [order[epoch * order.batches_per_epoch + step] for step in range(order.batches_per_epoch)]
        )
        assert len(rows) == len(set(rows.tolist())) > 1000 - 64


def test_the_same_seed_gives_the_same_batches_from_any_position() -> None:
    forward, again = BatchOrder(LENGTHS, 64, seed=1), BatchOrder(LENGTHS, 64, seed=1)
    batches = [forward[step].tolist() for step in range(40)]
    assert [again[step].tolist() for step in reversed(range(40))] == batches[::-1]


def test_seeds_and_epochs_differ() -> None:
    order = BatchOrder(LENGTHS, 64, seed=1)
    assert order[0].tolist() != BatchOrder(LENGTHS, 64, seed=2)[0].tolist()
    assert order[0].tolist() != order[order.batches_per_epoch].tolist()


def test_batches_hold_sentences_of_similar_length_in_random_order() -> None:
    order = BatchOrder(LENGTHS, 20, seed=1)
    batches = [LENGTHS[order[step]] for step in range(order.batches_per_epoch)]
    padding = 1 - sum(batch.sum() for batch in batches) / sum(batch.max() * 20 for batch in batches)
    assert padding < 0.1
    means = [batch.mean() for batch in batches]
    assert means != sorted(means)


def test_too_few_sentences() -> None:
    with pytest.raises(ValueError, match="10 sentences cannot fill a batch of 64"):
        BatchOrder(LENGTHS[:10], 64, seed=1)
