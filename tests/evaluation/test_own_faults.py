"""The user's own files: what they may get wrong is refused by file, row and column, or read as it was meant."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("mteb")

from distilbench.core.errors import UserError
from distilbench.data.text import numbers, read_column, read_sentences
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.overlap import pairs_seen
from distilbench.study.sections.texts import OwnTask, TextSpec

Writes = Callable[..., Path]
Row = dict[str, Any]
PAIRS: list[Row] = [
    {"sentence1": "a dog runs", "sentence2": "the dog, it runs", "score": 4.5},
    {"sentence1": "a cat sleeps", "sentence2": "two birds sing", "score": 0.25},
    {"sentence1": "red stone", "sentence2": "a stone; red", "score": 3},
]
CORPUS: list[Row] = [{"_id": f"d{row}", "title": "", "text": f"document {row} of six"} for row in range(6)]
QUERIES: list[Row] = [{"_id": f"q{row}", "text": f"query {row}"} for row in range(3)]
QRELS: list[Row] = [
    {"query-id": "q0", "corpus-id": "d0", "score": 1},
    {"query-id": "q0", "corpus-id": "d3", "score": 2},
    {"query-id": "q1", "corpus-id": "d1", "score": 1},
]
TEXT_TABLES = ("csv", "tsv", "jsonl")


def write(path: Path, rows: list[Row], separator: str = "", mark: bool = False) -> Path:
    """Rows in the format that the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
        return path
    if path.suffix == ".jsonl":
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
    else:
        stream = io.StringIO()
        separator = separator or ("\t" if path.suffix == ".tsv" else ",")
        quoting: Any = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
        table = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator="\n", quoting=quoting)
        table.writeheader()
        table.writerows(rows)
        text = stream.getvalue()
    path.write_text(text, encoding="utf-8-sig" if mark else "utf-8")
    return path


def beir(folder: Path, ending: str = "jsonl", mark: bool = False, **changed: list[Row]) -> Path:
    tables = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS} | changed
    for name, rows in tables.items():
        place = "qrels/test" if name == "qrels" else name
        write(folder / f"{place}.{'tsv' if name == 'qrels' and ending == 'jsonl' else ending}", rows, mark=mark)
    return folder


def load(source: Path, **settings: Any) -> Task:
    return load_task(OwnTask.model_validate({"name": "mine", "source": str(source), **settings}), None)


def refused(source: Path, *words: str, **settings: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(source, **settings)
    message = str(caught.value)
    assert "\n" not in message and "tasks.mine" in message
    for word in words:
        assert word in message, message


def data(task: Task) -> Any:
    return task.instance.dataset["default"]["test"] if task.is_retrieval else task.instance.dataset["test"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 2), (1, 3)])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_document_judged_twice(ending: str, first: int, second: int, place: int, tmp_path: Path) -> None:
    judged = {"query-id": "q2", "corpus-id": "d2"}
    qrels = [{**judged, "score": first}, *QRELS]
    qrels.insert(place + 1, {**judged, "score": second})
    row = f"row {place + 2} has the score {second}"
    refused(beir(tmp_path / "set", ending, qrels=qrels), "qrels/test.", row, "'q2'", "'d2'", f"earlier row {first}")
    qrels[place + 1]["score"] = first
    assert data(load(beir(tmp_path / "same", ending, qrels=qrels)))["relevant_docs"]["q2"] == {"d2": first}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_query_in_the_judgements_alone(ending: str, at: int, tmp_path: Path) -> None:
    qrels = [*QRELS[:at], {"query-id": "q9", "corpus-id": "d1", "score": 1}, *QRELS[at:]]
    folder = beir(tmp_path / "set", ending, qrels=qrels)
    refused(folder, f"row {at + 1} has the query-id 'q9'", "which is not in queries.")


def test_an_official_query_in_the_judgements_alone_is_left_out(tmp_path: Path) -> None:
    qrels = [*QRELS, {"query-id": "q9", "corpus-id": "d1", "score": 1}]
    beir(tmp_path / "mteb" / "scifact", qrels=qrels)
    task = load_task("SciFact", tmp_path)
    assert pairs_seen([task], [("query 0", "document 0 of six")]) == {"SciFact": 1}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("value", [5, 2.5, True])
@pytest.mark.parametrize("table", ["corpus", "queries"])
def test_a_text_that_is_none_is_named(ending: str, value: object, table: str, tmp_path: Path) -> None:
    rows = [dict(row) for row in (CORPUS if table == "corpus" else QUERIES)]
    if ending == "parquet":
        # A column has one type.
        rows = [{**row, "text": value} for row in rows]
        row = 1
    else:
        rows[1]["text"] = value
        row = 2
    folder = beir(tmp_path / "set", ending)
    write(folder / f"{table}.{ending}", rows)
    refused(folder, f"{table}.{ending} row {row} has", "under 'text'")


def test_a_text_of_pairs_that_is_a_number(tmp_path: Path) -> None:
    rows = [*PAIRS, {"sentence1": 7, "sentence2": "seven", "score": 1}]
    refused(write(tmp_path / "p.jsonl", rows), "p.jsonl line 4 has no text under 'sentence1'")
    frame = pd.DataFrame(PAIRS).assign(sentence2=[1, 2, 3])
    frame.to_parquet(tmp_path / "p.parquet")
    refused(tmp_path / "p.parquet", "p.parquet", "'sentence2' holds int64")
    # Whatever stands in a table of text is text.
    assert data(load(write(tmp_path / "p.csv", rows)))["sentence1"][3] == "7"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("every", [False, True])
def test_a_null_title_is_no_title(ending: str, every: bool, tmp_path: Path) -> None:
    rows = [{**row, "title": None if every or at == 2 else "so called"} for at, row in enumerate(CORPUS)]
    found = data(load(beir(tmp_path / "set", ending, corpus=rows)))["corpus"]["title"][:]
    assert found == [row["title"] or "" for row in rows]


def test_a_title_that_is_a_number(tmp_path: Path) -> None:
    rows = [{**row, "title": 3} for row in CORPUS]
    refused(beir(tmp_path / "set", corpus=rows), "corpus.jsonl row 1 has 3 under 'title'")


@pytest.mark.parametrize("size", [2**53 + 1, 2**63, 2**64, 10**30, -(2**63) - 1])
def test_numbers_as_ids_are_kept_whatever_their_size(size: int, tmp_path: Path) -> None:
    corpus = [{**row, "_id": size + at} for at, row in enumerate(CORPUS)]
    qrels = [{"query-id": "q0", "corpus-id": str(size + 4), "score": 1}]
    task = load(beir(tmp_path / "set", corpus=corpus, qrels=qrels))
    assert data(task)["corpus"]["id"][:] == [str(size + at) for at in range(6)]
    rows = [{"id": size + at, **row} for at, row in enumerate(PAIRS)]
    for ending in TEXT_TABLES:
        found = data(load(write(tmp_path / f"p.{ending}", rows)))
        assert found["score"][:] == [4.5, 0.25, 3.0]


def doubled(ending: str, column: str) -> str:
    """Pairs of which a column is there twice."""
    if ending == "jsonl":
        lines = [json.dumps(row) for row in PAIRS]
        lines[1] = f"{lines[1][:-1]}, {json.dumps(column)}: {json.dumps(PAIRS[0][column])}}}"
        return "\n".join(lines)
    separator = "," if ending == "csv" else "\t"
    clean = [{name: str(value).replace(",", "") for name, value in row.items()} for row in PAIRS]
    rows = [[*clean[0], column], *([*row.values(), row[column]] for row in clean)]
    return "\n".join(separator.join(row) for row in rows)


@pytest.mark.parametrize("ending", TEXT_TABLES)
@pytest.mark.parametrize("column", ["sentence1", "sentence2", "score"])
def test_a_column_that_is_there_twice(ending: str, column: str, tmp_path: Path) -> None:
    path = tmp_path / f"p.{ending}"
    path.write_text(doubled(ending, column))
    refused(path, f"p.{ending}", repr(column), "2 times")


@pytest.mark.parametrize("table", ["corpus.csv", "queries.csv", "qrels/test.csv"])
def test_a_column_of_documents_that_is_there_twice(table: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "csv")
    lines = (folder / table).read_text().splitlines()
    column = lines[0].split(",")[-1]
    (folder / table).write_text("\n".join([f"{lines[0]},{column}", *(f"{line},1" for line in lines[1:])]))
    refused(folder, Path(table).name, f"the column {column!r} is there 2 times")


def test_a_parquet_column_that_is_there_twice(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array(["a", "b"])
    names = ["sentence1", "sentence2", "score", "sentence1"]
    pq.write_table(pa.Table.from_arrays([texts, texts, pa.array([1.0, 2.0]), texts], names), tmp_path / "p.parquet")
    refused(tmp_path / "p.parquet", "'sentence1' is there 2 times")


@pytest.mark.parametrize("ending", TEXT_TABLES)
def test_a_byte_order_mark_changes_nothing(ending: str, tmp_path: Path) -> None:
    plain = load(write(tmp_path / f"a.{ending}", PAIRS) if ending != "tsv" else write(tmp_path / "a.csv", PAIRS))
    marked = load(write(tmp_path / f"b.{ending}", PAIRS, mark=True))
    assert marked.data_sha256 == plain.data_sha256
    assert next(read_column(tmp_path / f"b.{ending}", "sentence1", "labelled")) == "a dog runs"
    text = TextSpec(source=str(tmp_path / f"b.{ending}"), column="sentence1")
    assert next(read_sentences(text, None)) == "a dog runs"
    search = beir(tmp_path / "plain", ending), beir(tmp_path / "marked", ending, mark=True)
    assert load(search[0]).data_sha256 == load(search[1]).data_sha256


def readers(path: Path) -> Iterator[Callable[[], object]]:
    """All that reads a table of pairs."""
    yield lambda: list(read_sentences(TextSpec(source=str(path), column="sentence1"), None))
    yield lambda: list(read_column(path, "sentence1", "labelled"))
    yield lambda: numbers(path, "score", "labelled")
    yield lambda: load(path)


@pytest.mark.parametrize(("ending", "separator"), [("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", ",")])
def test_other_separators_are_named_by_all_readers(ending: str, separator: str, tmp_path: Path) -> None:
    rows = [{name: str(value).replace(",", "").replace(";", "") for name, value in row.items()} for row in PAIRS]
    path = tmp_path / f"p.{ending}"
    path.write_text("\n".join(separator.join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]))
    for read in readers(path):
        with pytest.raises(UserError, match="the columns are separated by"):
            read()


@pytest.mark.parametrize("ending", TEXT_TABLES)
@pytest.mark.parametrize("value", ["4,5", "1.234,5", "½", "four", ""])
def test_decimal_commas_are_refused_in_every_format(ending: str, value: str, tmp_path: Path) -> None:
    rows = [PAIRS[0], {**PAIRS[1], "score": value}, PAIRS[2]]
    refused(write(tmp_path / f"p.{ending}", rows), f"p.{ending} row 2 has no number under 'score'")


@pytest.mark.parametrize("at", [0, 40, 158])
@pytest.mark.parametrize("later", [False, True])
def test_a_quotation_mark_that_nothing_closes(at: int, later: bool, tmp_path: Path) -> None:
    lines = [f"sentence {row},another {row},{row % 5}" for row in range(160)]
    lines[at] = f'"{lines[at]}'
    if later:
        # Which closes the first, in the middle of a text.
        lines.append('a "quoted" word,more,1')
    path = tmp_path / "p.csv"
    path.write_text("\n".join(["sentence1,sentence2,score", *lines]) + "\n")
    for read in readers(path):
        with pytest.raises(UserError, match=rf"line {at + 2} .*quot"):
            read()


def test_quotation_marks_that_are_sound_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('sentence1,sentence2,score\n"a ""b"", c","line\nbreak",1\nan "odd" one,it\'s 5",2\n')
    found = data(load(path))
    assert found["sentence1"][:] == ['a "b", c', 'an "odd" one']
    assert found["sentence2"][:] == ["line\nbreak", "it's 5\""]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_documents_with_an_open_quotation_mark_or_a_field_too_many(ending: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", ending)
    lines = (folder / f"corpus.{ending}").read_text().splitlines()
    separator = "," if ending == "csv" else "\t"
    (folder / f"corpus.{ending}").write_text("\n".join([*lines, f"d9{separator}t{separator}x{separator}y"]))
    refused(folder, f"corpus.{ending}: line 8 has 4 fields, but the table 3 columns")
    (folder / f"corpus.{ending}").write_text("\n".join([*lines, f'd9{separator}t{separator}"x']))
    if ending == "csv":
        refused(folder, "corpus.csv: line 8 begins a text with a quotation mark that nothing closes")
    else:
        assert data(load(folder))["corpus"]["text"][-1] == '"x'
