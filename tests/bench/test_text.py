"""Reading text: every format, and one sentence naming file and line for whatever is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import UserError
from bench.study import TextSpec
from bench.text import read_sentences, source_key


def read(path: Path, **options: Any) -> list[str]:
    return list(read_sentences(TextSpec(source=str(path), **options), None))


def test_plain_text_is_stripped_and_distinct(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("A  dog.\r\nA cat.\r\nA dog.\r\nCafé\r\n".encode())
    assert read(path) == ["A dog.", "A cat.", "Café"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"text.{ending}"
    frame = pd.DataFrame({"id": [1, 2], "body": ["One, two.", 'A "quoted" one.']})
    match ending:
        case "csv":
            frame.to_csv(path, index=False)
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case "jsonl":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_parquet(path)
    assert read(path, column="body") == ["One, two.", 'A "quoted" one.']
    with pytest.raises(UserError, match=r"text\.column"):
        read(path, column="bodi")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "line 2 is empty"),
        (b"   ", "line 2 is empty"),
        (b"nul \0 byte", "line 2 holds a NUL byte"),
        (b"caf\xe9", "line 2 is not valid UTF-8"),
        (b"x" * 100_001, "line 2 has 100001 characters"),
    ],
)
def test_damaged_lines_are_named_or_skipped(tmp_path: Path, line: bytes, fault: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"first\n" + line + b"\nthird\n")
    with pytest.raises(UserError, match=fault) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "on_bad_line=skip" in str(caught.value)
    assert read(path, on_bad_line="skip") == ["first", "third"]


def test_a_replacement_character_is_ordinary_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("odd \ufffd but valid\n", encoding="utf-8")
    assert read(path) == ["odd \ufffd but valid"]


def test_broken_json_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n{broken\n")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read(path)
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1 has no text under 'text'"):
        read(path)
    other = tmp_path / "text.parquet"
    other.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not readable parquet"):
        read(other)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(UserError, match="needs a mirror"):
        list(read_sentences(TextSpec(source="mirror:train/x.parquet"), None))
    picture = tmp_path / "picture.png"
    picture.touch()
    with pytest.raises(UserError, match="is none of"):
        read(picture)


def test_the_key_follows_content_and_options(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\ntwo\n")
    key = source_key(TextSpec(source=str(path)), None)
    copy = tmp_path / "copy.txt"
    copy.write_text("one\ntwo\n")
    assert source_key(TextSpec(source=str(copy)), None) == key
    assert source_key(TextSpec(source=str(path), sentences=1), None) != key
    path.write_text("one\nthree\n")
    assert source_key(TextSpec(source=str(path)), None) != key
