"""Sentences on disk: what is written comes back, and what comes twice is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distilbench.data.sentences import AT_ONCE, chunks, distinct, repeated, sentence_writer, stored_sentences, write_all


def test_chunks() -> None:
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(chunks([])) == []


def test_distinct_reads_no_more_than_it_gives() -> None:
    sentences = iter(["a", "b", "a", "c", "d"])
    assert [text for text, _ in zip(distinct(sentences), range(3), strict=False)] == ["a", "b", "c"]
    assert list(sentences) == []


def test_what_is_written_comes_back_in_order(tmp_path: Path) -> None:
    sentences = [f"sentence {number} ü" for number in range(AT_ONCE + 5)]
    with sentence_writer(tmp_path / "text.parquet") as write:
        for some in chunks(sentences):
            write(some)
    assert list(stored_sentences(tmp_path / "text.parquet")) == sentences
    assert list(pd.read_parquet(tmp_path / "text.parquet")["text"]) == sentences


def test_no_sentences_are_a_file_without_rows(tmp_path: Path) -> None:
    assert write_all(tmp_path / "text.parquet", iter([])).tolist() == []
    assert list(stored_sentences(tmp_path / "text.parquet")) == []


def test_sentences_that_were_there_before_are_told(tmp_path: Path) -> None:
    # The second "a" is in another chunk than the first.
    sentences = ["a", "b", "b", *(str(number) for number in range(AT_ONCE)), "a", "c"]
    new_N = write_all(tmp_path / "text.parquet", iter(sentences))
    assert np.flatnonzero(~new_N).tolist() == [2, AT_ONCE + 3]
    assert list(stored_sentences(tmp_path / "text.parquet")) == sentences


def test_repeated_marks_are_found_in_any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilbench.data.sentences.MARKS_AT_ONCE", 100)
    marks_N = np.random.default_rng(0).integers(-500, 500, 2000)
    marks_N[:2] = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    marks = marks_N.tolist()
    expected = [mark in marks[:place] for place, mark in enumerate(marks)]
    assert repeated(marks_N).tolist() == expected
    assert 0 < sum(expected) < len(expected)
