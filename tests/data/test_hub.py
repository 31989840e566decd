"""Texts in the Hub's layout: what `datasets` makes of a folder, who they are, and one sentence for what is amiss."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from distilbench.core.errors import UserError
from distilbench.core.sealed import damage
from distilbench.data.text import numbers, open_source, read_column, read_sentences, source_key
from distilbench.records.record import read_study
from distilbench.study.sections.texts import DevSpec, LabelledSpec, TextSpec
from tests.conftest import Cli, Writes, sentences, shut_network
from tests.data.fake_hub import COMMIT, GATED, fake_hub

TEXTS = sentences(12)
SET = "org/set"


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shuts every way to the network, and sees that none was tried."""
    if "on_hub" in request.fixturenames:
        yield
        return
    tried = shut_network(monkeypatch)
    yield
    assert tried == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a data set in a mirror, which is `tmp_path`; nothing is in it yet."""
    made = tmp_path / SET
    made.mkdir(parents=True)
    return made


def table(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": range(len(texts)), "text": texts})


def card(folder: Path, **said: Any) -> None:
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(said)}---\n# Texts\n")


def shards(folder: Path) -> None:
    (folder / "data").mkdir()
    for number in range(2):
        for split, texts in {"train": TEXTS[:8], "test": TEXTS[8:]}.items():
            table(texts[number::2]).to_parquet(folder / "data" / f"{split}-{number:05d}-of-00002.parquet")


def shards_by_card(folder: Path) -> None:
    shards(folder)
    card(folder, configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}])


def folder_per_config(folder: Path) -> None:
    for name, texts in {"first": TEXTS[:5], "second": TEXTS[5:]}.items():
        (folder / name).mkdir()
        table(texts).to_parquet(folder / name / "train.parquet")
    card(folder, configs=[{"config_name": name, "data_dir": name} for name in ("first", "second")])


def one_csv(folder: Path) -> None:
    table([*TEXTS, 'A "quoted" one, with\nbreaks.']).to_csv(folder / "train.csv", index=False)


def tabs_by_card(folder: Path) -> None:
    table(TEXTS).to_csv(folder / "texts.csv", index=False, sep="\t")
    card(folder, configs=[{"config_name": "tabs", "data_files": "texts.csv", "sep": "\t"}])


def lines(folder: Path) -> None:
    table(TEXTS).to_json(folder / "test.jsonl", orient="records", lines=True)


def packed_lines(folder: Path) -> None:
    with gzip.open(folder / "train.jsonl.gz", "wt") as stream:
        table(TEXTS).to_json(stream, orient="records", lines=True)


def single_file(folder: Path) -> None:
    table(TEXTS).to_parquet(folder / "anything.parquet")


def many_files(folder: Path) -> None:
    (folder / "train").mkdir()
    for number in range(3):
        table(TEXTS[number::3]).to_csv(folder / "train" / f"part-{number}.csv", index=False)
    table(TEXTS[:2]).to_csv(folder / "test.csv", index=False)


def tabs(folder: Path) -> None:
    table(TEXTS).to_csv(folder / "train.tsv", index=False, sep="\t")


def one_array(folder: Path) -> None:
    table(TEXTS).to_json(folder / "train.json", orient="records")


def plain_text(folder: Path) -> None:
    (folder / "train.txt").write_text("\n".join(TEXTS) + "\n")


@pytest.mark.parametrize(
    ("write", "config", "split"),
    [
        (shards, None, "train"),
        (shards, None, "test"),
        (shards_by_card, None, "train"),
        (folder_per_config, "first", "train"),
        (folder_per_config, "second", "train"),
        (one_csv, None, "train"),
        (tabs_by_card, None, "train"),
        (lines, None, "test"),
        (packed_lines, None, "train"),
        (single_file, None, "train"),
        (plain_text, None, "train"),
        (many_files, None, "train"),
        (tabs, None, "train"),
        (one_array, None, "train"),
    ],
)
def test_layouts_are_read_as_datasets_reads_them(
    folder: Path, tmp_path: Path, write: Callable[[Path], None], config: str | None, split: str
) -> None:
    write(folder)
    expected = datasets.load_dataset(str(folder), config, split=split, cache_dir=str(tmp_path / "arrow"))["text"]
    spec = TextSpec(source=f"hub:{SET}", config=config, split=None if split == "train" else split)
    assert list(read_sentences(spec, tmp_path)) == [" ".join(text.split()) for text in expected]


def test_a_folder_in_the_working_one_is_no_mirror(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(folder)
    monkeypatch.chdir(folder.parents[1])
    with pytest.raises(UserError, match="is not in a mirror, and HF_HUB_OFFLINE is set; run distilbench prefetch"):
        source_key(TextSpec(source=f"hub:{SET}"), None)


def test_one_file_of_a_mirror(folder: Path, tmp_path: Path) -> None:
    one_csv(folder)
    spec = TextSpec(source=f"hf://datasets/{SET}/train.csv")
    assert list(read_sentences(spec, tmp_path))[:12] == TEXTS
    assert source_key(spec, tmp_path) == source_key(TextSpec(source=str(folder / "train.csv")), None)


def test_rows_and_scores(folder: Path, tmp_path: Path, labelled_file: Path) -> None:
    pd.read_csv(labelled_file).to_parquet(folder / "train.parquet")
    spec = LabelledSpec(source=f"hub:{SET}", scores=["good", "bad"])
    source = open_source(spec.source, spec, tmp_path, "labelled")
    for column in spec.columns:
        assert list(read_column(source, column, "labelled")) == list(read_column(labelled_file, column, "labelled"))
    assert numbers(source, "good", "labelled") == numbers(labelled_file, "good", "labelled")
    with pytest.raises(UserError, match=r"labelled\.scores: hub:org/set: unknown column 'god'; did you mean 'good'"):
        numbers(source, "god", "labelled")
    with pytest.raises(UserError, match="row 1 has no number under 'anchor'"):
        numbers(source, "anchor", "labelled")


def test_a_text_is_known_by_its_files(folder: Path, tmp_path: Path) -> None:
    shards(folder)
    key = source_key(TextSpec(source=f"hub:{SET}"), tmp_path)
    assert source_key(TextSpec(source=f"hub:{SET}", split="test"), tmp_path) != key
    elsewhere = tmp_path / "copy" / "org" / "other"
    shutil.copytree(folder, elsewhere)
    assert source_key(TextSpec(source="hub:org/other"), tmp_path / "copy") == key
    table(TEXTS[:2]).to_parquet(folder / "data" / "test-00000-of-00002.parquet")
    assert source_key(TextSpec(source=f"hub:{SET}"), tmp_path) == key
    table(TEXTS[:2]).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    assert source_key(TextSpec(source=f"hub:{SET}"), tmp_path) != key


def test_how_files_are_read_is_part_of_a_text(folder: Path, tmp_path: Path) -> None:
    tabs_by_card(folder)
    (folder / "texts.csv").write_text("text\tid;text\nwhole\t1;part\n")
    key = source_key(TextSpec(source=f"hub:{SET}"), tmp_path)
    card(folder, configs=[{"config_name": "tabs", "data_files": "texts.csv", "sep": ";", "names": ["id", "text"]}])
    assert source_key(TextSpec(source=f"hub:{SET}"), tmp_path) != key


def test_damaged_rows_are_named_or_skipped(folder: Path, tmp_path: Path) -> None:
    table(["first", "", "nul \0 byte", "third"]).to_parquet(folder / "train.parquet")
    spec = TextSpec(source=f"hub:{SET}")
    with pytest.raises(UserError, match=r"text\.source: hub:org/set line 2 is empty.*on_bad_line=skip"):
        list(read_sentences(spec, tmp_path))
    skipping = TextSpec(source=f"hub:{SET}", on_bad_line="skip")
    assert list(read_sentences(skipping, tmp_path)) == ["first", "third"]
    invalid = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"caf\xe9"]).buffers()[1:]])
    pq.write_table(pa.table({"text": invalid}), folder / "train.parquet")
    with pytest.raises(UserError, match="line 1 is not valid UTF-8"):
        list(read_sentences(spec, tmp_path))


def break_parquet(folder: Path) -> None:
    (folder / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1 no more than this")


def cut_gzip(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    packed_lines(folder)
    path = folder / "train.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-30])


def not_unicode(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    (folder / "train.csv").write_bytes(b"text\ncaf\xe9\n")


def outside(folder: Path) -> None:
    table(TEXTS).to_parquet(folder.parent / "secret.parquet")
    card(folder, configs=[{"config_name": "default", "data_files": "../secret.parquet"}])


def script(folder: Path) -> None:
    (folder / "set.py").write_text("raise SystemExit('this was run')\n")


REFUSALS: list[tuple[Callable[[Path], Any], dict[str, Any], str]] = [
    (lambda _: None, {"config": "defualt"}, r"text\.config: .*unknown configuration 'defualt'; did you mean 'default'"),
    (lambda _: None, {"split": "trian"}, r"text\.split: .*unknown split 'trian'; did you mean 'train'"),
    (lambda _: None, {"column": "txt"}, r"unknown column 'txt'; did you mean 'text'\?; set text\.column"),
    (lambda _: None, {"column": "id"}, r"the column 'id' holds int64, not text; set text\.column"),
    (
        lambda _: None,
        {"source": "hub:org/other"},
        "is not in a mirror, and HF_HUB_OFFLINE is set; run distilbench pref",
    ),
    (lambda _: None, {"source": "hub:org/../set"}, "names no data set; write hub:OWNER/NAME"),
    (lambda _: None, {"source": "hub:org/set/data"}, "names no data set; write hub:OWNER/NAME"),
    (lambda _: None, {"source": f"hf://datasets/{SET}/no.jsonl"}, "is not in a mirror, and HF_HUB_OFFLINE is set"),
    (folder_per_config, {}, r"text\.config: .* has several configurations; name one of first, second"),
    (lambda at: (at / "data/train-00001-of-00002.parquet").unlink(), {}, "lacks train-00001-of-00002; put it there"),
    (lambda at: shutil.rmtree(at / "data"), {}, "cannot be read from .*; mend the files, or remove the folder"),
    (outside, {}, r"asks for .*secret\.parquet, which is no file of its own; give a data set that holds its files"),
    (script, {}, "is made by a script, which is not run; give a data set of files"),
    (break_parquet, {}, "cannot be read from .*; mend the files, or remove the folder and run distilbench prefetch"),
    (cut_gzip, {}, "cannot be read from .*; mend the files"),
    (not_unicode, {}, "cannot be read from .*; mend the files"),
    (lambda at: (at / "README.md").write_text("---\nconfigs: [\n---\n"), {}, "cannot be read from .*; mend the files"),
]


@pytest.mark.parametrize(("spoil", "asked", "sentence"), REFUSALS)
def test_refusals(
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path], Any],
    asked: dict[str, Any],
    sentence: str,
) -> None:
    shards(folder)
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        list(read_sentences(TextSpec.model_validate({"source": f"hub:{SET}", **asked}), tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")


def test_a_card_that_names_some_shards_means_these(folder: Path, tmp_path: Path) -> None:
    shards(folder)
    card(folder, configs=[{"config_name": "few", "data_files": "data/train-00000-of-00002.parquet"}])
    assert list(read_sentences(TextSpec(source=f"hub:{SET}"), tmp_path)) == TEXTS[:8:2]


@pytest.mark.parametrize("spec", [TextSpec, LabelledSpec, DevSpec])
@pytest.mark.parametrize("key", ["config", "split"])
def test_only_data_sets_have_configurations_and_splits(spec: type[TextSpec], key: str) -> None:
    assert getattr(spec.model_validate({"source": "hub:org/set", key: "some"}), key) == "some"
    for source in ("text.parquet", f"hf://datasets/{SET}/a.csv"):
        with pytest.raises(ValidationError, match="give source: hub:OWNER/NAME, or leave them out"):
            spec.model_validate({"source": source, key: "some"})


@pytest.mark.slow
def test_a_study_scores_the_same_as_from_a_file(
    cli: Cli, study: Writes, folder: Path, tmp_path: Path, text_file: Path, labelled_file: Path
) -> None:
    table(text_file.read_text().splitlines()).to_parquet(folder / "train.parquet")
    pd.read_csv(labelled_file).to_parquet(folder / "dev.parquet")
    columns = ["anchor", "positive"]
    of_hub = {"text": {"source": f"hub:{SET}"}, "dev": {"source": f"hub:{SET}", "split": "validation"}}
    of_files = {"text": {"source": str(text_file)}, "dev": {"source": str(labelled_file)}}
    found = []
    for name, sections in {"hub": of_hub, "files": of_files}.items():
        path = study(name=name, text=sections["text"], dev={**sections["dev"], "columns": columns, "rows": 40})
        code, _, error = cli("run", path, "--mirror", tmp_path)
        assert code == 0, error
        found.append(
            {
                record.role: (record.scores, record.text.get("sha256"))
                for record in read_study(tmp_path / "results" / name)
            }
        )
    assert found[0] == found[1] and len(found[0]) == 3


def test_the_command_line_refuses_before_it_plans(cli: Cli, study: Writes, folder: Path, tmp_path: Path) -> None:
    shards(folder)
    code, out, error = cli("run", study(text={"source": f"hub:{SET}", "split": "dev"}), "--mirror", tmp_path)
    assert (code, out) == (2, "") and "unknown split 'dev'; known: test, train" in error.splitlines()[-1]
    code, out, error = cli("run", study(text={"source": "text.txt", "split": "dev"}))
    assert (code, out) == (2, "") and "give source: hub:OWNER/NAME, or leave them out" in error


@pytest.mark.mirror
def test_real_data_sets_as_datasets_reads_them(mirror: Path, tmp_path: Path) -> None:
    for name, config, split in [("mteb/nfcorpus", "queries", "queries"), ("mteb/stsbenchmark-sts", None, "validation")]:
        column = "text" if config else "sentence1"
        spec = TextSpec(source=f"hub:{name}", config=config, split=split, column=column)
        rows = datasets.load_dataset(str(mirror / name), config, split=split, cache_dir=str(tmp_path / name))
        assert list(read_sentences(spec, mirror)) == [" ".join(text.split()) for text in rows[column]]


FROM_THE_HUB = """
import json, sys
from pathlib import Path
from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.data.text import open_source, read_sentences, source_key
from distilbench.study.sections.texts import TextSpec

found = {}
for line in sys.argv[1:]:
    spec = TextSpec.model_validate(json.loads(line))
    try:
        source = open_source(spec.source, spec, None, "text")
        found[line] = source.files, source_key(spec, None), list(read_sentences(spec, None))
    except UserError as error:
        found[line] = str(error)
print(json.dumps(found))
"""


FETCH = """
import json, sys
from itertools import islice
from pathlib import Path
from distilbench.runs.prefetch import prefetch
from distilbench.study.study_file import load_study

for _ in range(2):
    # Teacher, two texts, labelled text and dev; the tasks would take longest.
    parts = list(islice(prefetch(load_study(sys.argv[1]), Path(sys.argv[2])), 5))
    print(json.dumps([[part.state, part.where] for part in parts if "org/set" in part.name]))
"""


@pytest.fixture
def on_hub(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder that a Hub on this machine gives out as SET, and the environment of those who are to ask it."""
    folder = tmp_path / "given-out"
    folder.mkdir()
    shards(folder)
    table(TEXTS[:3]).to_json(folder / "more.jsonl", orient="records", lines=True)
    train, test = ({"split": split, "path": f"data/{split}-*"} for split in ("train", "test"))
    table(TEXTS).to_parquet(tmp_path / "secret.parquet")
    files = {"main": [train, test], "x": [train], "far": str(tmp_path / "secret.parquet")}
    card(folder, license="mit", configs=[{"config_name": name, "data_files": said} for name, said in files.items()])
    with fake_hub(folder, SET) as (address, _):
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        yield folder, environment


def outcome(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_texts_of_the_hub_are_those_of_a_commit(on_hub: tuple[Path, dict[str, str]]) -> None:
    asked: list[dict[str, Any]] = [
        {"source": f"hub:{SET}", "config": "main"},
        {"source": f"hub:{SET}", "config": "main", "split": "test"},
        {"source": f"hf://datasets/{SET}/more.jsonl"},
        {"source": f"hub:{SET}"},
        {"source": "hub:org/none"},
        {"source": f"hub:{GATED}"},
        {"source": f"hub:{SET}", "config": "far"},
    ]
    done = outcome(on_hub[1], "-c", FROM_THE_HUB, *map(json.dumps, asked))
    assert done.returncode == 0, done.stderr
    train, test, file, several, none, gated, far = json.loads(done.stdout).values()
    base = f"hf://datasets/{SET}@{COMMIT}"
    assert train[0] == [f"{base}/data/train-{number:05d}-of-00002.parquet" for number in range(2)]
    assert (train[2], test[2]) == (TEXTS[:8:2] + TEXTS[1:8:2], TEXTS[8::2] + TEXTS[9::2])
    assert (file[0], file[2]) == ([f"{base}/more.jsonl"], TEXTS[:3])
    assert len({train[1], test[1], file[1]}) == 3
    assert several == f"text.config: hub:{SET} on the Hub has several configurations; name one of main, x, far"
    refusal = "is not on the Hub, or not for everyone; check the name, or run hf auth login"
    assert (none, gated) == (f"text.source: hub:org/none {refusal}", f"text.source: hub:{GATED} {refusal}")
    assert f"cannot be read from the Hub (Data files don't belong to {SET}" in far and "give another source" in far
    away = outcome({**on_hub[1], "HF_ENDPOINT": "http://127.0.0.1:9"}, "-c", FROM_THE_HUB, json.dumps(asked[0]))
    (unreachable,) = json.loads(away.stdout).values()
    assert unreachable.startswith(f"text.source: hub:{SET} is not in a mirror, and the Hub cannot be reached; run dist")


@pytest.mark.slow
def test_prefetch_brings_what_a_study_reads(on_hub: tuple[Path, dict[str, str]], study: Writes, tmp_path: Path) -> None:
    _, environment = on_hub
    mirror = tmp_path / "mirror"
    dev = {"source": f"hub:{SET}", "config": "main", "split": "test", "columns": ["id", "text"]}
    path = study(text={"source": [f"hub:{SET}", f"hf://datasets/{SET}/more.jsonl"], "config": "main"}, dev=dev)
    folder = mirror / SET
    done = outcome(environment, "-c", FETCH, str(path), str(mirror))
    assert done.returncode == 0, done.stderr
    places = [str(place) for place in (folder, folder / "more.jsonl", folder)]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[[state, place] for place in places] for state in ("fetched", "there")]
    assert damage(folder) is None
    source = json.loads((folder / "SOURCE.json").read_text())
    assert (source["hub"], source["revision"], source["licence"]) == (SET, COMMIT, "mit")
    spec = TextSpec(source=f"hub:{SET}", config="main")
    assert list(read_sentences(spec, mirror)) == TEXTS[:8:2] + TEXTS[1:8:2]
    # What was not asked for is not there, and does not pass for something else.
    with pytest.raises(UserError, match="remove the folder and run distilbench prefetch"):
        source_key(TextSpec(source=f"hub:{SET}", config="x"), mirror)
    with pytest.raises(UserError, match="has several configurations"):
        source_key(TextSpec(source=f"hub:{SET}"), mirror)


@pytest.mark.slow
def test_prefetch_leaves_folders_of_others_alone(
    on_hub: tuple[Path, dict[str, str]], study: Writes, folder: Path, tmp_path: Path
) -> None:
    single_file(folder)
    text = {"source": [f"hub:{SET}", f"hf://datasets/{SET}/more.jsonl"]}
    path = study(text=text, dev={"source": "embedded"})
    done = outcome(on_hub[1], "-c", FETCH, str(path), str(tmp_path))
    assert done.returncode == 0, done.stderr
    whole, file = json.loads(done.stdout.splitlines()[-1])
    assert whole == ["there", str(folder)]
    assert file == ["missing", f"text.source: {folder} has no more.jsonl; put it there, or remove the folder"]
    assert [file.name for file in folder.iterdir()] == ["anything.parquet"]
