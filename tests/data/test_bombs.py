"""Data that would fill the memory is refused in one sentence, before anything is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilbench.core import bounds
from distilbench.core.errors import UserError
from distilbench.data.checks import packed_bounds
from distilbench.data.checks.packed_bounds import check_unpacked
from distilbench.data.checks.parquet_bounds import opened_parquet
from distilbench.data.checks.parquet_pages import pages
from distilbench.data.sentences import chunks
from distilbench.data.text import numbers, read_column, read_sentences
from distilbench.study.sections.texts import TextSpec
from tests.data import bombs

GIGABYTE = 2**30
SAID = {
    "line.txt": "line 2 is longer than 16777216 characters",
    "line.csv": "line 3 is longer than 16777216 characters",
    "line.tsv": "line 3 is longer than 16777216 characters",
    "line.jsonl": "line 2 is longer than 16777216 characters",
    "page.parquet": "rows 1 to 2, column 'text': a part of it unpacks to 26843",
    "cell.parquet": "row 1, column 'text': has 16777217 bytes",
    "repeated.parquet": "row 1, column 'text': has 16777217 bytes",
    "rows.parquet": "has 16777217 rows in",
    "deep.jsonl": "line 1 is not JSON",
    "quote.csv": "line 2 is longer than 16777216 characters",
    "cells.csv": "line 2 is longer than 16777216 characters",
}
REFUSE = """
import json, sys
from pathlib import Path
{imports}
from distilbench.core.errors import UserError
said = {{}}
def refused(name, use):
    try:
        use()
    except UserError as error:
        said[name] = str(error)
{body}
from distilbench.study.budget import peak_resident_bytes
print(json.dumps([said, peak_resident_bytes()]))
"""


def refusals(imports: str, body: str, *paths: Path) -> tuple[dict[str, str], int]:
    """What a process of its own says of some files, and the most memory that it had, in bytes."""
    code = REFUSE.format(imports=imports, body=body)
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    said, peak = json.loads(done.stdout.splitlines()[-1])
    return said, peak


def check(said: dict[str, str], peak: int, expected: dict[str, str]) -> None:
    assert set(said) == set(expected)
    for name, part in expected.items():
        assert part in said[name] and name in said[name] and len(said[name]) < 500, said[name]
        assert said[name].count("; ") >= 1 and "\n" not in said[name], said[name]
    assert peak < GIGABYTE, peak


def test_text_of_every_format_is_refused_without_reading_it(tmp_path: Path) -> None:
    files = list(bombs.text_bombs(tmp_path))
    said, peak = refusals(
        "from distilbench.data.text import read_sentences\nfrom distilbench.study.sections.texts import TextSpec",
        "for path in sys.argv[1:]:\n"
        "    spec = TextSpec(source=path, on_bad_line='skip')\n"
        "    refused(Path(path).name, lambda: sum(1 for _ in read_sentences(spec, None)))\n",
        *files,
    )
    check(said, peak, SAID)


def test_labelled_text_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bombs.repeated_cell(tmp_path / "same.parquet", ["anchor", "positive"])
    bombs.sparse(tmp_path / "line.csv", b"anchor,positive\n")
    bombs.open_quote(tmp_path / "quote.csv", "anchor")
    said, peak = refusals(
        "from distilbench.data.labelled import RowsRequest, _read\n"
        "from distilbench.study.sections.texts import LabelledSpec",
        "for path in sys.argv[1:]:\n"
        "    spec = LabelledSpec(source=path, columns=['anchor', 'positive'])\n"
        "    refused(Path(path).name, lambda: _read(spec, None, 'labelled'))\n",
        *sorted(tmp_path.iterdir()),
    )
    check(
        said,
        peak,
        {"same.parquet": "unpacks to more than", "line.csv": "line 2 is longer", "quote.csv": "line 2 is longer"},
    )


def test_vectors_are_refused_by_what_their_heads_promise(tmp_path: Path) -> None:
    for name, make in (("rows", bombs.promised_rows), ("head", bombs.long_head)):
        make(tmp_path / f"{name}.npy")
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    bombs.sparse(tmp_path / "lines.jsonl", b'{"text": "a"}\n')
    np.save(tmp_path / "lines.npy", np.ones((2, 4), dtype=np.float32))
    bombs.long_list(tmp_path / "list.parquet", "vector")
    bombs.large_cell(tmp_path / "cell.parquet", {"text": ["", "b"], "vector": ["1", "2"]}, 2**28 + 1)
    said, peak = refusals(
        "from distilbench.data.vectors import _write\nfrom distilbench.study.sections.models import TeacherSpec\n"
        "from distilbench.data.vectors import _files\nimport tempfile",
        "for path in sys.argv[1:]:\n"
        "    spec = TeacherSpec(vectors=path)\n"
        "    refused(Path(path).name, lambda: _write(Path(tempfile.mkdtemp()), spec, _files(spec)))\n",
        *sorted(path for path in tmp_path.iterdir() if path.suffix != ".jsonl"),
    )
    check(
        said,
        peak,
        {
            "rows.npy": "mmap length is greater than file size",
            "head.npy": "its head is too long",
            "lines.npy": "line 2 is longer",
            "list.parquet": "row 1, column 'vector.list.element': has 33554432 values in lists",
            "cell.parquet": "unpacks to 26843",
        },
    )


def test_data_sets_of_text_are_refused_as_they_are_unpacked(tmp_path: Path) -> None:
    beginnings = {"csv": b"text,label\nfine,1\n", "jsonl": b'{"text": "fine"}\n', "txt": b"fine\n"}
    expected = {}
    for kind, first in beginnings.items():
        for ending in ("", ".gz", ".bz2"):
            folder = tmp_path / "org" / f"{kind}{ending}"
            folder.mkdir(parents=True)
            path = folder / f"train.{kind}{ending}"
            bombs.packed(path, first) if ending else bombs.sparse(path, first)
            expected[path.name] = "is longer than"
    said, peak = refusals(
        "from distilbench.data.text import read_sentences\nfrom distilbench.study.sections.texts import TextSpec",
        "mirror = Path(sys.argv[1])\n"
        "for path in sorted(mirror.rglob('train.*')):\n"
        "    spec = TextSpec(source=f'hub:org/{path.parent.name}', on_bad_line='skip')\n"
        "    refused(path.name, lambda: sum(1 for _ in read_sentences(spec, mirror)))\n",
        tmp_path,
    )
    check(said, peak, expected)


def test_tables_of_tasks_are_refused(tmp_path: Path) -> None:
    bombs.packed(tmp_path / "zeros.tsv.gz", b"text\nfine\n")
    bombs.packed(tmp_path / "zeros.jsonl.gz", b'{"text": "fine"}\n')
    bombs.packed(tmp_path / "rows.jsonl.gz", b"", b'{"text": "fine"}\n' * 10**5, 17 * 10**6)
    bombs.short_rows(tmp_path / "short.csv", ["text"])
    bombs.many_keys(tmp_path / "keys.jsonl", "text")
    bombs.deep(tmp_path / "deep.jsonl", "text")
    bombs.repeated_cell(tmp_path / "same.parquet", ["text"])
    bombs.large_cell(tmp_path / "page.parquet", {"text": ["", "b"]}, 2**28 + 1)
    said, peak = refusals(
        # A small machine, so that the test takes less time.
        "from distilbench.core import bounds\nbounds.largest_table = lambda: 2**26\n"
        "from distilbench.evaluation.tasks.files import read_table",
        "for path in map(Path, sys.argv[1:]):\n"
        "    try:\n"
        "        read_table(path)\n"
        "    except ValueError as error:\n"
        "        said[path.name] = str(error)\n",
        *sorted(tmp_path.iterdir()),
    )
    check(
        said,
        peak,
        {
            "zeros.tsv.gz": "line 3 is longer",
            "zeros.jsonl.gz": "line 2 is longer",
            "rows.jsonl.gz": "unpacks to more than",
            "short.csv": "unpacks to more than",
            "keys.jsonl": "unpacks to more than",
            "deep.jsonl": "line 1 is not JSON",
            "same.parquet": "unpacks to more than",
            "page.parquet": "a part of it unpacks to 26843",
        },
    )


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_every_packed_text_is_measured(tmp_path: Path, ending: str) -> None:
    fine, bomb = tmp_path / f"fine.txt{ending}", tmp_path / f"bomb.txt{ending}"
    bombs.packed(fine, b"a\nb\n", b"some text\n", 100)
    assert check_unpacked(fine, "text") == 4 + 100
    assert check_unpacked(fine, "csv") == 4 + 100
    bombs.packed(bomb, b"a\n", total=2**25)
    for kind in ("text", "csv"):
        with pytest.raises(ValueError, match=r"(line|row) 2 is longer"):
            check_unpacked(bomb, kind)


def test_rows_that_are_read_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_bounds, "BLOCK_BYTES", 2**20)
    path = tmp_path / "wide.csv.gz"
    bombs.packed(path, b"text\n", b"x" * 99_999 + b"\n", 2 * 10**6)
    for kind in ("csv", "text"):
        with pytest.raises(ValueError, match="more than 1048576 bytes together"):
            check_unpacked(path, kind)


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"compression": None}]
)
@pytest.mark.parametrize("encoding", [None, "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_parquet_in_batches_is_what_was_written(tmp_path: Path, options: dict[str, Any], encoding: str | None) -> None:
    path = tmp_path / "a.parquet"
    texts = [None if row % 7 == 0 else f"row {row % 50} é" for row in range(3000)]
    lists = [[f"{row}", "same"] for row in range(3000)]
    if encoding:
        options = {**options, "use_dictionary": False, "column_encoding": {"text.dots": encoding}}
    pq.write_table(
        pa.table({"text.dots": texts, "lists": lists, "n": range(3000)}),
        path,
        row_group_size=700,
        data_page_size=1000,
        write_batch_size=100,
        **options,
    )
    with opened_parquet(path) as file:
        batches = list(file.batches(file.names))
    table = pa.Table.from_batches(batches)
    assert [value for batch in batches for value in batch.column(0).to_pylist()] == texts
    assert table.column(1).to_pylist() == lists and table.column(2).to_pylist() == list(range(3000))
    meta = pq.read_metadata(path)
    for group in range(meta.num_row_groups):
        for place in range(meta.num_columns):
            chunk = meta.row_group(group).column(place)
            heads = list(pages(path, chunk))
            assert sum(head.values for head in heads) == chunk.num_values
            assert sum(head.size for head in heads) <= chunk.total_uncompressed_size


def test_a_damaged_head_of_a_page_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    with pytest.raises(Exception, match="is not readable parquet: the head of a page"):
        list(read_sentences(TextSpec(source=str(path)), None))


def test_keys_that_are_all_others_are_refused(tmp_path: Path) -> None:
    bombs.many_keys(tmp_path / "keys.jsonl", "text")
    with pytest.raises(UserError, match="line 10000 brings the keys to more than 10000; leave most of them out"):
        numbers(tmp_path / "keys.jsonl", "key1", "labelled")


def test_chunks_of_long_texts_are_short() -> None:
    assert [len(some) for some in chunks(["a"] * 5, 2)] == [2, 2, 1]
    assert [len(some) for some in chunks(["a" * 2**25] * 5)] == [2, 2, 1]


def test_a_column_of_numbers_in_several_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"score": [0.5, 1, 2.5], "text": ["0.5", "a", "b"]}), path, row_group_size=1)
    assert numbers(path, "score", "labelled") == [0.5, 1.0, 2.5]
    assert list(read_column(path, "text", "labelled")) == ["0.5", "a", "b"]


def test_a_long_text_below_the_bound_can_still_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("fine\n" + "x" * 10**6 + "\nfine\n")
    assert list(read_sentences(TextSpec(source=str(path), on_bad_line="skip"), None)) == ["fine", "fine"]


def test_the_bound_of_a_table_is_half_of_the_memory() -> None:
    assert 2**28 < bounds.largest_table() < 2**50
    with pytest.raises(ValueError, match=r"half of this machine's memory; take fewer rows"):
        bounds.check_table_size(2**62)
