"""The user's own files, further: values that pass for others, and tables in forms that are nearly read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytest.importorskip("mteb")

from tests.evaluation.test_own_faults import (
    CORPUS,
    PAIRS,
    QRELS,
    QUERIES,
    TEXT_TABLES,
    beir,
    data,
    load,
    refused,
    write,
)

Cli = Callable[..., tuple[int, str, str]]
Row = dict[str, Any]


def changed(rows: list[Row], at: int, **values: object) -> list[Row]:
    return [{**row, **values} if place == at else row for place, row in enumerate(rows)]


def with_line(path: Path, line: str | bytes) -> None:
    with path.open("ab") as stream:
        stream.write(line.encode() if isinstance(line, str) else line)


@pytest.mark.parametrize("score", [1.5, 1e30, -1e30, 2**31, 2**63, 2**70, 10**400])
def test_a_grade_that_is_none(score: float, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set")
    (folder / "qrels" / "test.tsv").unlink()
    write(folder / "qrels" / "test.jsonl", changed(QRELS, 1, score=score))
    if score == 10**400:
        refused(folder, "test.jsonl row 2 has no usable value under 'score'")
    else:
        refused(folder, "test.jsonl row 2 has the score", "a whole number")


def test_a_date_is_no_grade(tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "parquet")
    pd.DataFrame(QRELS).assign(score=pd.Timestamp("2020-01-01")).to_parquet(folder / "qrels" / "test.parquet")
    refused(folder, "test.parquet row 1 has no usable value under 'score'")


@pytest.mark.parametrize("score", [0, -1])
def test_judgements_by_which_nothing_is_relevant(score: int, tmp_path: Path) -> None:
    qrels = [{**row, "score": score} for row in QRELS]
    refused(beir(tmp_path / "set", qrels=qrels), "qrels/test.tsv has no score above 0")
    # Of one query, nothing may be.
    load(beir(tmp_path / "one", qrels=changed(QRELS, 2, score=score)))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("table", "column"), [("corpus", "_id"), ("queries", "_id"), ("queries", "text")])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_id_or_a_query_that_is_empty(ending: str, table: str, column: str, value: str, tmp_path: Path) -> None:
    rows = changed(CORPUS if table == "corpus" else QUERIES, 2, **{column: value})
    folder = beir(tmp_path / "set", ending)
    write(folder / f"{table}.{ending}", rows)
    refused(folder, f"{table}.{ending} row 3 has no usable value under '{column.strip('_')}'")


def test_a_document_may_be_empty(tmp_path: Path) -> None:
    # As two of Cranfield's are.
    assert data(load(beir(tmp_path / "set", corpus=changed(CORPUS, 2, text=""))))["corpus"]["text"][2] == ""


@pytest.mark.parametrize("table", ["corpus", "queries"])
@pytest.mark.parametrize(("value", "said"), [("a\0b", "holds a NUL byte"), ("a \ud800 b", "is not valid UTF-8")])
def test_characters_that_no_text_has(table: str, value: str, said: str, tmp_path: Path) -> None:
    rows = changed(CORPUS if table == "corpus" else QUERIES, 1, text=value)
    folder = beir(tmp_path / "set")
    write(folder / f"{table}.jsonl", rows)
    refused(folder, f"{table}.jsonl", " 2 ", said)


@pytest.mark.parametrize("ending", TEXT_TABLES)
def test_bytes_that_are_not_utf8(ending: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", ending)
    line = {
        "jsonl": b'{"_id": "d9", "title": "", "text": "caf\xe9"}\n',
        "csv": b"d9,,caf\xe9\n",
        "tsv": b"d9\t\tcaf\xe9\n",
    }
    with_line(folder / f"corpus.{ending}", line[ending])
    refused(folder, f"corpus.{ending}", "7" if ending == "jsonl" else "8", "is not valid UTF-8")


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_tables_in_utf16(ending: str, encoding: str, tmp_path: Path) -> None:
    write(tmp_path / f"p.{ending}", [{name: str(value).replace(",", "") for name, value in PAIRS[0].items()}, PAIRS[1]])
    text = (tmp_path / f"p.{ending}").read_text(encoding="utf-8")
    (tmp_path / f"p.{ending}").write_text(f"\N{LATIN SMALL LETTER E WITH ACUTE}{text}", encoding=encoding)
    refused(tmp_path / f"p.{ending}", "line 1 is not valid UTF-8; save the file as UTF-8")


@pytest.mark.parametrize("line", ["[1, 2]", "5", "null", '"text"', "true", "[]"])
@pytest.mark.parametrize("of", ["corpus", "qrels", "pairs"])
def test_a_line_that_is_no_object(line: str, of: str, tmp_path: Path) -> None:
    if of == "pairs":
        path = source = write(tmp_path / "p.jsonl", PAIRS)
    else:
        source = beir(tmp_path / "set")
        path = source / "corpus.jsonl"
        if of == "qrels":
            (source / "qrels" / "test.tsv").unlink()
            path = write(source / "qrels" / "test.jsonl", QRELS)
    count = len(path.read_text().splitlines())
    with_line(path, f"{line}\n")
    refused(source, path.name, f"line {count + 1} is no object")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (["sentence1", "sentence2", "score"], '{"sentence1": "x", "sentence2": "y", "score": 1, "scor\\u0065": 5}'),
        (["größe", "sentence2", "score"], '{"größe": "x", "größe": "z", "sentence2": "y", "score": 1}'),
        (["größe", "sentence2", "score"], '{"gr\\u00f6\\u00dfe": "x", "größe": "z", "sentence2": "y", "score": 1}'),
    ],
)
def test_a_key_that_is_there_twice_in_other_letters(columns: list[str], line: str, tmp_path: Path) -> None:
    rows = [{columns[0]: row["sentence1"], "sentence2": row["sentence2"], "score": row["score"]} for row in PAIRS]
    path = write(tmp_path / "p.jsonl", rows)
    with_line(path, f"{line}\n")
    refused(path, "line 4 has the key", "2 times", columns=columns)


def test_a_key_within_another_value_is_no_second_one(tmp_path: Path) -> None:
    rows = [{**row, "metadata": {"text": "b", "_id": "d0"}} for row in CORPUS]
    load(beir(tmp_path / "set", corpus=rows))


@pytest.mark.parametrize(
    "columns", [["1", "2", "3"], ["a", "b", "2020-01-01"], ["a", "b", "date"], ["a", "b", "rated_at"]]
)
def test_columns_that_are_named_like_numbers_and_dates(columns: list[str], tmp_path: Path) -> None:
    rows = [dict(zip(columns, [f"one {at}", f"two {at}", 400_000_000 + at], strict=True)) for at in range(3)]
    found = data(load(write(tmp_path / "p.jsonl", rows), columns=columns))
    assert found["score"][:] == [400_000_000.0, 400_000_001.0, 400_000_002.0]


def test_a_score_that_no_float_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [*PAIRS, {"sentence1": "x", "sentence2": "y", "score": 10**400}])
    refused(path, "p.jsonl row 4 has no number under 'score'")


@pytest.mark.parametrize("table", ["corpus", "queries", "qrels/test"])
def test_a_table_that_is_there_twice(table: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "csv")
    rows = {"corpus": CORPUS, "queries": QUERIES, "qrels/test": QRELS}[table]
    write(folder / f"{table}.parquet", rows)
    name = Path(table).name
    refused(folder, f"{name}.parquet and {name}.csv are both there")


def test_a_document_with_two_ids(tmp_path: Path) -> None:
    corpus = [{**row, "id": f"other {row['_id']}"} for row in CORPUS]
    refused(beir(tmp_path / "set", corpus=corpus), "corpus.jsonl has the columns '_id' and 'id'")


def test_whole_numbers_that_are_stored_as_others(tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "parquet")
    write(folder / "queries.parquet", [{"_id": float(row), "text": f"query {row}"} for row in range(3)])
    write(folder / "qrels" / "test.parquet", [{**row, "query-id": row["query-id"][1:]} for row in QRELS])
    assert data(load(folder))["relevant_docs"] == {"0": {"d0": 1, "d3": 2}, "1": {"d1": 1}}


@pytest.mark.parametrize("table", ["corpus", "queries", "qrels/test"])
@pytest.mark.parametrize(("ending", "separator"), [("csv", ";"), ("tsv", ",")])
def test_other_separators_of_documents_are_named(table: str, ending: str, separator: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", ending)
    rows = {"corpus": CORPUS, "queries": QUERIES, "qrels/test": QRELS}[table]
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    (folder / f"{table}.{ending}").write_text("\n".join(lines))
    refused(folder, f"{Path(table).name}.{ending}: the columns are separated by {separator!r}")
    # And where a text holds what separates them elsewhere.
    lines[1] += "\t," if ending == "tsv" else ", and more"
    (folder / f"{table}.{ending}").write_text("\n".join(lines))
    refused(folder, f"{Path(table).name}.{ending}: ", f"the columns are separated by {separator!r}")


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_no_judgements(ending: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "set")
    (folder / "qrels" / "test.tsv").unlink()
    (folder / "qrels" / f"test.{ending}").write_text("query-id\tcorpus-id\tscore\n" if ending == "tsv" else "")
    refused(folder, f"test.{ending} has no " + ("rows" if ending == "tsv" else "column 'query-id'"))


def test_the_command_line_says_so_before_anything_is_paid_for(
    cli: Cli, teacher_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    folder = beir(tmp_path / "set")
    with_line(folder / "corpus.jsonl", "[1, 2]\n")
    values = {
        "name": "mine",
        "teacher": str(teacher_folder),
        "student": {"layers": 1},
        "text": {"source": str(text_file)},
        "budget": {"steps": 1},
        "methods": ["mse"],
        "seeds": 1,
        "train": {"batch_size": 8, "max_length": 32},
        "tasks": [{"mine": {"source": str(folder)}}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    code, _, err = cli("run", tmp_path / "study.yaml", "--dry-run", "--out", tmp_path / "results")
    assert code == 2 and "corpus.jsonl: line 7 is no object" in err.splitlines()[-1]
    values["tasks"] = [{"mine": {"source": str(folder), "columns": ["a", "a", "score"]}}]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    code, _, err = cli("run", tmp_path / "study.yaml", "--dry-run", "--out", tmp_path / "results")
    assert code == 2 and "names a column twice" in err
