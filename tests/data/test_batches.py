"""Batch order is a pure function of seed, lengths and batch size."""

from __future__ import annotations

import numpy as np
import pytest

from distilbench.data.batches import BatchOrder, batches_per_pool, length_batches
from distilbench.runs.cost import _rows_of_a_batch
from distilbench.study.sections.training import TrainSpec

LENGTHS = np.random.default_rng(0).integers(3, 40, size=1000)


def test_an_epoch_visits_every_sentence_at_most_once_and_drops_less_than_a_batch() -> None:
    order = BatchOrder(LENGTHS, 64, seed=1)
    for epoch in range(2):
        rows = np.concatenate(
            [order[epoch * order.batches_in_epoch(0) + step] for step in range(order.batches_in_epoch(0))]
        )
        assert len(rows) == len(set(rows.tolist())) > 1000 - 64


def test_the_same_seed_gives_the_same_batches_from_any_position() -> None:
    forward, again = BatchOrder(LENGTHS, 64, seed=1), BatchOrder(LENGTHS, 64, seed=1)
    batches = [forward[step].tolist() for step in range(40)]
    assert [again[step].tolist() for step in reversed(range(40))] == batches[::-1]


def test_seeds_and_epochs_differ() -> None:
    order = BatchOrder(LENGTHS, 64, seed=1)
    assert order[0].tolist() != BatchOrder(LENGTHS, 64, seed=2)[0].tolist()
    assert order[0].tolist() != order[order.batches_in_epoch(0)].tolist()


def test_of_a_small_text_other_sentences_meet_in_every_epoch() -> None:
    order = BatchOrder(np.random.default_rng(0).permutation(512), 64, seed=1)
    first, second = ([set(batch) for batch in epoch_of(order, start)] for start in (0, 8))
    for batch in first:
        assert max(len(batch & other) for other in second) < 48


@pytest.mark.parametrize(("count", "pool"), [(64, 1), (256, 1), (512, 2), (1280, 5), (8192, 32), (10**6, 32)])
def test_a_text_is_at_least_four_pools_if_it_has_as_many_batches(count: int, pool: int) -> None:
    assert batches_per_pool(count, 64) == pool


def test_batches_hold_sentences_of_similar_length_in_random_order() -> None:
    order = BatchOrder(LENGTHS, 20, seed=1)
    batches = [LENGTHS[order[step]] for step in range(order.batches_in_epoch(0))]
    padding = 1 - sum(batch.sum() for batch in batches) / sum(batch.max() * 20 for batch in batches)
    assert padding < 0.1
    means = [batch.mean() for batch in batches]
    assert means != sorted(means)


def test_too_few_sentences() -> None:
    with pytest.raises(ValueError, match="10 sentences cannot fill a batch of 64"):
        BatchOrder(LENGTHS[:10], 64, seed=1)


def test_length_batches_cover_all_rows_within_the_token_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=200)
    parts = list(length_batches(np.arange(200), lengths, 64))
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    assert all(len(part) == 1 or len(part) * lengths[part].max() <= 64 for part in parts)


def epoch_of(order: BatchOrder, first: int = 0) -> list[list[int]]:
    return [order[first + step].tolist() for step in range(order.batches_in_epoch(first))]


@pytest.mark.parametrize(("batch_size", "tokens"), [(64, 300), (64, 2000), (3, 50), (2, 500), (1000, 20)])
def test_batches_by_tokens_hold_as_many_rows_as_fit(batch_size: int, tokens: int) -> None:
    order = BatchOrder(LENGTHS, batch_size, seed=1, batch_tokens=tokens)
    batches = epoch_of(order)
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows)) >= len(LENGTHS) - 1
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2 and max(sizes) <= max(batch_size, 3)
    assert all(len(batch) <= 3 or len(batch) * LENGTHS[batch].max() <= tokens for batch in batches)


def test_batches_by_tokens_are_filled() -> None:
    order = BatchOrder(LENGTHS, 64, seed=1, batch_tokens=300)
    padded = [len(batch) * LENGTHS[batch].max() for batch in epoch_of(order)]
    assert np.mean(padded) > 0.85 * 300


def test_batches_by_tokens_are_the_same_from_any_position() -> None:
    forward, again = (BatchOrder(LENGTHS, 64, seed=1, batch_tokens=600) for _ in range(2))
    batches = [forward[step].tolist() for step in range(120)]
    assert [again[step].tolist() for step in reversed(range(120))] == batches[::-1]
    first = forward.batches_in_epoch(0)
    assert batches[:first] == epoch_of(again) and batches[first : 2 * first] != batches[:first]
    second = epoch_of(again, first)
    assert batches[first : first + len(second)] == second[: 120 - first]


def test_one_row_is_never_left_alone() -> None:
    for count in range(2, 40):
        order = BatchOrder(np.full(count, 10), 2, seed=0, batch_tokens=20)
        assert {len(batch) for batch in epoch_of(order)} == {2}
        order = BatchOrder(np.full(count, 10), min(count, 5), seed=0, batch_tokens=30)
        assert {len(batch) for batch in epoch_of(order)} <= {2, 3}


def test_the_estimate_knows_how_many_rows_fit() -> None:
    spec = TrainSpec(batch_size=64)
    assert _rows_of_a_batch(spec, 20) == 64
    by_tokens = spec.model_copy(update={"batch_tokens": 1000})
    assert [_rows_of_a_batch(by_tokens, length) for length in (10, 20, 400, 2000)] == [64, 50, 2, 2]
