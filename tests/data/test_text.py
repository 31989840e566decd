"""Reading text, and keeping it tokenised: every format, and one sentence for whatever is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilbench.core.errors import UserError
from distilbench.data import text
from distilbench.data.checks import parquet_bounds
from distilbench.data.corpus import Corpus, texts_of
from distilbench.data.plain_text import TextRequest, build_or_open, corpus_key
from distilbench.data.text import read_sentences, source_key
from distilbench.study.sections.texts import TextSpec
from tests.conftest import reader_of


def read(path: Path, **options: Any) -> list[str]:
    return list(read_sentences(TextSpec(source=str(path), **options), None))


def test_plain_text_is_stripped(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("A  dog.\r\nA cat.\r\nCafé\r\n".encode())
    assert read(path) == ["A dog.", "A cat.", "Café"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"text.{ending}"
    frame = pd.DataFrame({"id": [1, 2], "body": ["One, two.", 'A "quoted" one.']})
    match ending:
        case "csv":
            frame.to_csv(path, index=False)
        case "tsv":
            path.write_text('id\tbody\n1\tOne, two.\n2\tA "quoted" one.\n')
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
    with pytest.raises(UserError, match="line 1 is no object"):
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


def table(path: Path, line: str) -> None:
    """Three rows, of which the second, on the third line of the file, is `line`."""
    rows = ["id,text", "1,first", line, "3,third"] if path.suffix == ".csv" else ["text", "first", line, "third"]
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_an_enormous_field_of_a_table_is_named_or_skipped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"text.{ending}"
    table(path, ("2," if ending == "csv" else "") + "x" * 200_000)
    with pytest.raises(UserError, match=rf"{ending} line 3 has 200000 characters"):
        read(path)
    assert read(path, on_bad_line="skip") == ["first", "third"]


def test_a_table_that_cannot_be_read_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilbench.core.tables.FIELD_LIMIT", 1000)
    path = tmp_path / "text.csv"
    table(path, "2," + "x" * 2000)
    with pytest.raises(UserError, match=r"text\.csv line 3 cannot be read as a table: field larger"):
        read(path)


def test_blank_and_short_rows_of_a_table_are_named_by_their_line_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "text.csv"
    for line in ("", "2", "2,"):
        table(path, line)
        with pytest.raises(UserError, match="line 3 is empty"):
            read(path)
        assert read(path, on_bad_line="skip") == ["first", "third"]
    path.write_text('text\n"two\nlines"\n\0\n')
    with pytest.raises(UserError, match="line 4 holds a NUL byte"):
        read(path)
    path.write_text("")
    with pytest.raises(UserError, match="unknown column 'text'"):
        read(path)


def test_a_quotation_mark_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "text.tsv"
    path.write_text('text\n"Stop, he said.\nNo" was the answer.\n')
    assert read(path) == ['"Stop, he said.', 'No" was the answer.']


def test_blank_lines_of_jsonl_are_named_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "first"}\n\n{"text": "third"}\n')
    with pytest.raises(UserError, match="line 2 is empty"):
        read(path)
    assert read(path, on_bad_line="skip") == ["first", "third"]


def test_lone_surrogates_are_not_valid_text(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "first"}\n{"text": "half a \\ud800 pair"}\n{"text": "\\ud83d\\ude00"}\n')
    with pytest.raises(UserError, match="line 2 is not valid UTF-8"):
        read(path)
    assert read(path, on_bad_line="skip") == ["first", "\U0001f600"]


def test_deeply_nested_json_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read(path)


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"text.{ending}"
    content = {"txt": "word\n", "jsonl": '{"text": "word"}\n'}.get(ending, "text\nword\n")
    path.write_text(content, encoding="utf-8-sig")
    assert read(path) == ["word"]
    path.write_bytes(path.read_bytes() + content.encode().replace(b"word", b"caf\xe9"))
    assert read(path, on_bad_line="skip")[0] == "word"


@pytest.mark.parametrize("values", [[1, 2], [["a"], ["b"]], [b"a", b"b"]])
def test_a_parquet_column_must_hold_text(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "text.parquet"
    pd.DataFrame({"text": values}).to_parquet(path)
    with pytest.raises(UserError, match=r"the column 'text' holds .*, not text; set text\.column"):
        read(path)


def test_parquet_may_hold_categories_gaps_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    pd.DataFrame({"text": pd.Categorical(["one", None, "two"])}).to_parquet(path)
    with pytest.raises(UserError, match="line 2 is empty"):
        read(path)
    assert read(path, on_bad_line="skip") == ["one", "two"]
    damaged = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": damaged}), path)
    with pytest.raises(UserError, match="line 2 is not valid UTF-8"):
        read(path)
    assert read(path, on_bad_line="skip") == ["fine"]


def test_each_text_of_a_parquet_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dictionary grows from batch to batch: a file that is twice as long takes twice as long."""
    texts = [f"Sentence {number}." for number in range(2000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "text.parquet")
    monkeypatch.setattr(parquet_bounds, "AT_ONCE", 100)
    decoded: list[int] = []

    def counted(values: Any) -> list[str]:
        decoded.append(len(values))
        return decode(values)

    decode = text._decoded
    monkeypatch.setattr(text, "_decoded", counted)
    assert read(tmp_path / "text.parquet") == texts
    assert len(decoded) == 20 and sum(decoded) == len(texts)


def test_parquet_that_is_damaged_behind_a_good_footer(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    pd.DataFrame({"text": [f"sentence {number}" for number in range(2000)]}).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:4000] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"text\.parquet (is not readable parquet|cannot be read)"):
        read(path)


def test_a_home_folder_that_is_not_known() -> None:
    with pytest.raises(UserError, match=r"~nosuchuser/x\.txt names the home folder"):
        read(Path("~nosuchuser/x.txt"))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    path = tmp_path / "text.txt"
    path.touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("open", "is_file"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, refuse)
            for use in (read, lambda it: source_key(TextSpec(source=str(it)), None)):
                with pytest.raises(UserError, match=r"text\.txt cannot be read \(Permission denied\)"):
                    use(path)


@pytest.fixture
def build(teacher_folder: Path, text_file: Path, tmp_path: Path) -> Callable[..., Corpus]:
    """Build, or open, the corpus that some settings of a study make."""

    def make(
        limit: int | None = None, sentences: int | None = None, batch_size: int = 16, source: Path = text_file
    ) -> Corpus:
        request = TextRequest(TextSpec(source=str(source), sentences=sentences), 128, batch_size, limit, None)
        key = corpus_key(request, reader_of(teacher_folder))
        return build_or_open(request, reader_of(teacher_folder), key, tmp_path / "cache")

    return make


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limit": 20}, r"--limit 20 takes 20 sentences of .*; raise --limit or"),
        ({"sentences": 20}, r"text\.sentences 20 takes 20 sentences of .*; raise text\.sentences or"),
        ({}, r"text\.source .* has 400 distinct sentences, fewer than train\.batch_size 500; give more text or"),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_text_smaller_than_a_batch_is_refused_and_the_cause_named(
    build: Callable[..., Corpus], tmp_path: Path, settings: dict[str, int], expected: str, cached: bool
) -> None:
    if cached:
        build(**settings)
    with pytest.raises(UserError, match=expected):
        build(**settings, batch_size=500)
    assert any((tmp_path / "cache" / "corpora").glob("*/tokens.bin")) == cached


def texts(corpus: Corpus, tmp_path: Path) -> list[str]:
    return list(texts_of(tmp_path / "cache", corpus.key))


def test_a_text_has_each_sentence_once_where_it_comes_first(
    build: Callable[..., Corpus], text_file: Path, tmp_path: Path
) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "repeated.txt"
    path.write_text("\n".join([*lines[:3], lines[0], *lines[2:], lines[-1]]) + "\n", encoding="utf-8")
    assert texts(build(source=path), tmp_path) == list(dict.fromkeys(lines))


def test_a_larger_sample_holds_the_smaller_in_the_order_of_the_text(
    build: Callable[..., Corpus], tmp_path: Path
) -> None:
    everything = texts(build(), tmp_path)
    small, large = (texts(build(sentences=count), tmp_path) for count in (20, 50))
    assert (len(small), len(large)) == (20, 50)
    assert set(small) < set(large)
    assert small != everything[:20]
    for sample in (small, large):
        assert sample == [text for text in everything if text in sample]


def test_a_text_leaves_nothing_beside_its_files(build: Callable[..., Corpus], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "corpora" / build().key
    assert {path.name for path in folder.iterdir()} == {
        "meta.json",
        "tokens.bin",
        "offsets.npy",
        "sentences.parquet",
        "KEY",
        "SHA256SUMS",
    }


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["meta.json", "tokens.bin", "offsets.npy", "sentences.parquet", "KEY", "SHA256SUMS"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_text_is_made_again(
    build: Callable[..., Corpus], tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    first = build()
    file = tmp_path / "cache" / "corpora" / first.key / name
    content = file.read_bytes()
    damage(file)
    assert build().sha256 == first.sha256
    assert file.read_bytes() == content


@pytest.mark.parametrize("what", ["text", "tokenizer"])
def test_what_is_replaced_after_it_was_hashed_is_refused_and_not_kept(
    teacher_folder: Path, text_file: Path, tmp_path: Path, what: str
) -> None:
    text, model, cache = tmp_path / "text.txt", tmp_path / "model", tmp_path / "cache"
    shutil.copy(text_file, text)
    shutil.copytree(teacher_folder, model)
    request = TextRequest(TextSpec(source=str(text)), 128, 16, None, None)
    key = corpus_key(request, reader_of(model))
    with (text if what == "text" else model / "tokenizer_config.json").open("a") as stream:
        stream.write("\n" if what == "tokenizer" else "another sentence\n")
    with pytest.raises(
        UserError, match=r"text\.source .*text\.txt was changed while it was read; run the same command"
    ):
        build_or_open(request, reader_of(model), key, cache)
    assert not any((cache / "corpora").iterdir())
    now = corpus_key(request, reader_of(model))
    assert len(build_or_open(request, reader_of(model), now, cache)) == 400 + (what == "text")


def test_text_that_is_damaged_is_not_read(build: Callable[..., Corpus], tmp_path: Path) -> None:
    key = build().key
    flip(tmp_path / "cache" / "corpora" / key / "sentences.parquet")
    with pytest.raises(UserError, match=rf"the text in .*{key} is damaged .*; delete that folder"):
        next(texts_of(tmp_path / "cache", key))
