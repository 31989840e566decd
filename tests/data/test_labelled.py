"""Labelled text: what is read, sampled and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distilbench.core.errors import UserError
from distilbench.data.labelled import LabelledText, RowsRequest, Section, build_or_open, labelled_key
from distilbench.data.tokenizer import load_tokenizer
from distilbench.study.sections.texts import LabelledSpec
from tests.conftest import reader_of

Build = Callable[..., LabelledText]


def request(source: Path | str, batch_size: int = 4, limit: int | None = None, **section: Any) -> RowsRequest:
    spec = LabelledSpec.model_validate({"source": str(source), **section})
    return RowsRequest(spec, "labelled", 128, batch_size, limit, None)


@pytest.fixture
def build(teacher_folder: Path, tmp_path: Path) -> Build:
    def make(source: Path | str, **settings: Any) -> LabelledText:
        asked = request(source, **settings)
        key = labelled_key(asked, reader_of(teacher_folder))
        return build_or_open(asked, reader_of(teacher_folder), key, tmp_path / "cache")

    return make


def texts(text: LabelledText, tmp_path: Path) -> pd.Series:
    folder = tmp_path / "cache" / "corpora" / text.corpus.key
    return pd.read_parquet(folder / "sentences.parquet")["text"]


def test_each_text_is_tokenised_once(build: Build, tmp_path: Path, teacher_folder: Path) -> None:
    rows = [
        ("a dog", "a cat", "a tree"),
        ("a dog", "a house", "a cat"),
        ("a dog", "a cat", "a tree"),
        ("x", "y", "a dog"),
    ]
    path = tmp_path / "rows.csv"
    pd.DataFrame(rows * 2, columns=["anchor", "positive", "negative"]).to_csv(path, index=False)
    text = build(path, batch_size=3)
    known = texts(text, tmp_path)
    assert len(known) == len(set(known)) == 6
    assert [tuple(known[place] for place in row) for row in text.rows_RC] == [rows[0], rows[1], rows[3]]
    ids = load_tokenizer(teacher_folder)("a house")["input_ids"]
    place = int(text.rows_RC[1, 1])
    assert text.corpus.tokens[text.corpus.offsets[place] : text.corpus.offsets[place + 1]].tolist() == ids
    lengths = text.corpus.lengths()
    assert text.lengths().tolist() == [int(lengths[row].max()) for row in text.rows_RC]
    with pytest.raises(ValueError, match="3 texts, not 4"):
        text.sentences(np.array([0]), 4)


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tsv", "csv"])
def test_files_of_every_kind_with_scores(build: Build, labelled_file: Path, tmp_path: Path, ending: str) -> None:
    table, path = pd.read_csv(labelled_file), tmp_path / f"rows.{ending}"
    writers: dict[str, Callable[[], object]] = {
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
        "parquet": lambda: table.to_parquet(path),
        "tsv": lambda: table.to_csv(path, sep="\t", index=False),
        "csv": lambda: table.to_csv(path, index=False),
    }
    writers[ending]()
    text = build(path, columns=["anchor", "negative"], scores=["bad"], rows=50)
    assert (len(text), text.columns) == (50, 2)
    assert text.scores is not None
    assert text.scores.shape == (50, 1)
    known = texts(text, tmp_path)
    pairs = {(row.anchor, row.negative) for row in table.itertuples()}
    assert all((known[one], known[other]) in pairs for one, other in text.rows_RC)


def test_scores_stay_with_their_rows(build: Build, labelled_file: Path, tmp_path: Path) -> None:
    text = build(labelled_file, scores=["good", "bad"], rows=30)
    table, known = pd.read_csv(labelled_file).set_index("anchor"), texts(text, tmp_path)
    assert text.scores is not None
    for row, (score, _) in zip(text.rows_RC, text.scores, strict=True):
        assert score == pytest.approx(table.loc[known[row[0]], "good"])


def test_a_limit_takes_the_same_sample_shorter(build: Build, labelled_file: Path, tmp_path: Path) -> None:
    small, large = build(labelled_file, limit=20), build(labelled_file, rows=60)
    anchors = [set(texts(text, tmp_path)[text.rows_RC[:, 0]]) for text in (small, large)]
    assert (len(small), len(large)) == (20, 60)
    assert anchors[0] <= anchors[1]


def test_embedded_triples_are_summaries_with_their_own_and_another_body(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.data.embedded.docstrings.TRAIN_PACKAGES", ("rich", "networkx"))
    monkeypatch.setattr("distilbench.data.embedded.docstrings._held_out", set)
    text = build("embedded", rows=50)
    known = texts(text, tmp_path)
    assert text.columns == 3
    for anchor, positive, negative in text.rows_RC:
        assert known[positive] != known[negative]
        assert len(known[anchor].split()) <= 30


@pytest.mark.parametrize(
    ("content", "section", "complaint"),
    [
        ("anchor,positive\na,b\n", {}, "unknown column 'negative'"),
        ("anchor,positive,negative\na,,c\n", {}, "line 2, column 'positive', is empty"),
        ("anchor,positive,negative\na,b,c\n", {}, "gives 1 rows, fewer than train.batch_size 4"),
        ("a,b,s\nx,y,high\n", {"columns": ["a", "b"], "scores": ["s"]}, "row 1 has no number under 's'"),
        ("a,b,s\nx,y,1\n", {"columns": ["a", "b"], "scores": ["t"]}, "unknown column 't'"),
    ],
)
def test_damaged_text_is_one_sentence(
    build: Build, tmp_path: Path, content: str, section: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=complaint) as caught:
        build(path, **section)
    assert "labelled" in str(caught.value)


def test_a_file_without_columns_has_no_rows(build: Build, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="labelled"):
        build(tmp_path / "rows.txt")
    with pytest.raises(UserError, match=r"labelled.source: there is no file"):
        build(tmp_path / "none.csv")


@pytest.mark.parametrize("section", ["labelled", "dev"])
def test_rows_that_are_replaced_after_they_were_hashed_are_refused(
    section: Section, labelled_file: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(labelled_file.read_bytes())
    asked = replace(request(path), section=section)
    key = labelled_key(asked, reader_of(teacher_folder))
    path.write_text(labelled_file.read_text() + "one,more,row,1,0\n")
    with pytest.raises(UserError, match=rf"{section}\.source .*rows\.csv was changed while it was read; run the same"):
        build_or_open(asked, reader_of(teacher_folder), key, tmp_path / "cache")
    assert not any((tmp_path / "cache" / "corpora").iterdir())
