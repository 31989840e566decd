"""A mirror's files are what the sums beside them say, and nothing outside of it is read through it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytest.importorskip("mteb")

from distilbench.core import mirror as checking
from distilbench.core.errors import UserError
from distilbench.core.hashes import file_sha256
from distilbench.core.mirror import check
from distilbench.data.text import open_source, resolve
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.models.finding import find_model
from distilbench.study.sections.texts import OwnTask, TextSpec

Cli = Callable[..., tuple[int, str, str]]
Writes = Callable[..., Path]


def seal(folder: Path, mark: str = " ") -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)} {mark}{path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def mirror(tmp_path: Path, teacher_folder: Path, text_file: Path, write_pairs: Writes, write_beir: Writes) -> Path:
    """Of everything that a study may read there, one, each folder with its sums."""
    folder = tmp_path / "mirror"
    for place in ("mteb/sts12-sts", "train", "extra", "org/texts"):
        (folder / place).mkdir(parents=True)
    pd.read_csv(write_pairs(tmp_path)).to_parquet(folder / "mteb/sts12-sts/test.parquet")
    write_beir(folder / "mteb/scifact")
    write_beir(folder / "own")
    shutil.copytree(teacher_folder, folder / "org/teacher")
    shutil.copy(text_file, folder / "train/text.txt")
    shutil.copy(write_pairs(tmp_path), folder / "extra/pairs.csv")
    (folder / "org/texts/train.jsonl").write_text('{"text": "a dog runs"}\n{"text": "a cat sleeps"}\n')
    for place in ("mteb/sts12-sts", "mteb/scifact", "own", "org/teacher", "org/texts", "extra"):
        seal(folder / place, "*" if place == "own" else " ")
    seal(folder / "train")
    return folder


ONE_FILE = "hf://datasets/org/texts/train.jsonl"
READ: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pairs": ("mteb/sts12-sts/test.parquet", lambda mirror: load_task("STS12", mirror)),
    "corpus": ("mteb/scifact/corpus.jsonl", lambda mirror: load_task("SciFact", mirror)),
    "judgements": ("mteb/scifact/qrels/test.tsv", lambda mirror: load_task("SciFact", mirror)),
    "folder": ("own/queries.jsonl", lambda mirror: load_task(OwnTask(name="o", source="mirror:own"), mirror)),
    "table": ("extra/pairs.csv", lambda mirror: load_task(OwnTask(name="o", source="mirror:extra/pairs.csv"), mirror)),
    "text": ("train/text.txt", lambda mirror: resolve("mirror:train/text.txt", mirror)),
    "data set": (
        "org/texts/train.jsonl",
        lambda mirror: open_source("hub:org/texts", TextSpec(source="hub:org/texts"), mirror, "text"),
    ),
    "file of a data set": (
        "org/texts/train.jsonl",
        lambda mirror: open_source(ONE_FILE, TextSpec(source=ONE_FILE), mirror, "text"),
    ),
    "model": ("org/teacher/model.safetensors", lambda mirror: find_model("org/teacher", mirror)),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("what", READ)
def test_damage_is_named(what: str, how: str, mirror: Path) -> None:
    if (what, how) == ("file of a data set", "gone"):
        pytest.skip("which is to be had from the Hub then")
    place, read = READ[what]
    read(mirror)
    DAMAGE[how](mirror / place)
    with pytest.raises(UserError) as caught:
        read(mirror)
    message = str(caught.value)
    assert Path(place).name in message and "SHA256SUMS" in message and "fetch it again" in message
    assert "\n" not in message


def test_a_file_is_read_once_to_be_checked(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def watched(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(checking, "file_sha256", watched)
    for _ in range(3):
        load_task("STS12", mirror)
    assert read == ["test.parquet"]
    os.utime(mirror / "mteb/sts12-sts/test.parquet", ns=(1, 1))
    load_task("STS12", mirror)
    assert read == ["test.parquet"] * 2
    # Of the folder of a text, only the text.
    (mirror / "train" / "other.txt").write_text("other")
    seal(mirror / "train")
    resolve("mirror:train/text.txt", mirror)
    assert read[2:] == ["text.txt"]


def test_what_is_without_sums_is_read(mirror: Path) -> None:
    for sums in mirror.rglob("SHA256SUMS"):
        sums.unlink()
    for place, read in READ.values():
        read(mirror)
        assert (mirror / place).is_file()


def test_sums_of_the_whole_mirror_count_too(mirror: Path) -> None:
    for sums in mirror.rglob("SHA256SUMS"):
        sums.unlink()
    seal(mirror)
    for place, read in READ.values():
        read(mirror)
        flip(mirror / place)
        with pytest.raises(UserError, match="is not the file that its SHA256SUMS names"):
            read(mirror)
        flip(mirror / place)


@pytest.mark.parametrize("line", ["no sum", f"{'0' * 64}  ../outside", f"{'0' * 64}  /etc/hostname", f"{'0' * 63}  a"])
def test_sums_that_are_none_are_named(line: str, mirror: Path) -> None:
    with (mirror / "mteb/sts12-sts/SHA256SUMS").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(UserError, match="SHA256SUMS line 2 is no sum of a file"):
        load_task("STS12", mirror)


def study(folder: Path, **changes: object) -> Path:
    values = {
        "name": "checked",
        "teacher": "org/teacher",
        "student": {"layers": 1},
        "text": {"source": ["mirror:train/text.txt", "hub:org/texts", ONE_FILE]},
        "budget": {"steps": 1},
        "methods": ["mse"],
        "seeds": 1,
        "train": {"batch_size": 8, "max_length": 32},
        "tasks": ["STS12", "SciFact", {"o": {"source": "mirror:own"}}, {"p": {"source": "mirror:extra/pairs.csv"}}],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.mark.parametrize("what", READ)
def test_prefetch_checks_what_is_there(what: str, mirror: Path, cli: Cli, tmp_path: Path) -> None:
    command = ["prefetch", study(tmp_path), "--out", mirror, "--json"]
    assert cli(*command)[0] == 0
    path = mirror / READ[what][0]
    before = path.stat()
    flip(path)
    # Though it looks like the file that was checked before.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = cli(*command)
    assert code == 2 and path.name in out + err and "SHA256SUMS" in out + err


OUTSIDE = ["../secret.csv", "train/../../secret.csv", "..", "../..", "{}/secret.csv", "/etc/passwd"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("section", ["text", "labelled", "dev", "tasks"])
def test_a_mirror_leads_nowhere_else(
    name: str, section: str, mirror: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    shutil.copy(labelled_file, tmp_path / "secret.csv")
    source = {"source": f"mirror:{name.format(tmp_path)}"}
    changes: dict[str, object] = {section: [{"o": source}] if section == "tasks" else source}
    changes["methods"] = ["simcse-supervised" if section == "labelled" else "mse"]
    code, _, err = cli("run", study(tmp_path, **changes), "--mirror", mirror)
    assert code == 2
    assert "leads out of the mirror" in err.splitlines()[-1] and section in err.splitlines()[-1]


def test_a_folder_without_sums_is_not_looked_at(tmp_path: Path) -> None:
    check(tmp_path / "nothing", tmp_path)
