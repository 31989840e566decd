"""Malformed studies and data: each is refused in one sentence, and nothing is left behind.

Every study in `tests/malformed` says in its first line which words the user must see (`|` between them), and in the
second one, if need be, what else stands on the command line. Of its teachers, only what differs from a sound one is
stored; what a file `ABSENT` lists is taken away.
"""

from __future__ import annotations

import builtins
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from distilbench.cli.app import main
from distilbench.core.sealed import damage, is_sealed
from distilbench.models.model_folder import load_encoder

FOLDER = Path(__file__).parents[1] / "malformed"
STUDIES = sorted(FOLDER.glob("*.yaml"))
EXPECT, ARGUMENTS = "# expect: ", "# arguments: "
SOUND = """
name: sound
teacher: teachers/sound
student: {layers: 2, width: 16}
text: {source: data/sentences.txt}
budget: {steps: 4}
methods: [mse, simcse-supervised: {hard_negatives: false}]
labelled: {source: data/pairs.csv, columns: [anchor, positive], scores: [score]}
seeds: 1
tasks: [DistilbenchSTS]
train: {batch_size: 8, max_length: 64}
"""
"""What the malformed studies are made from."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path) -> Path:
    """The malformed studies, with teachers made whole but for what is wrong with them."""
    place = tmp_path_factory.mktemp("malformed")
    shutil.copytree(teacher_folder, place / "teachers" / "sound")
    for teacher in (FOLDER / "teachers").iterdir():
        shutil.copytree(teacher_folder, place / "teachers" / teacher.name)
    shutil.copytree(FOLDER, place, dirs_exist_ok=True)
    for listing in place.glob("teachers/*/ABSENT"):
        for name in listing.read_text(encoding="utf-8").split():
            (listing.parent / name).unlink()
    (place / "sound.yaml").write_text(SOUND, encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # To whoever asks whether to run something.
    monkeypatch.setattr(builtins, "input", lambda *_: "yes")


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def exit_code(arguments: list[str]) -> int | str | None:
    try:
        return main(arguments)
    except SystemExit as stopped:
        return stopped.code


def half_written(cache: Path) -> list[Path]:
    """What is in the cache besides locks and sealed folders that are whole."""
    whole = [path for path in cache.glob("*/*") if is_sealed(path) and damage(path) is None]
    return [path for path in files(cache) if path.suffix != ".lock" and not {*path.parents} & {*whole}]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_it_is_one_sentence_and_leaves_nothing(
    path: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = path.read_bytes().split(b"\n")[:2]
    expected, arguments = [line.decode(errors="replace") for line in (*head, b"")][:2]
    before = files(folder)
    given = shlex.split(arguments.removeprefix(ARGUMENTS)) if arguments.startswith(ARGUMENTS) else []
    code = exit_code(["run", path.name, *given])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    # A run that has begun says what it is at: lines that begin with the study's name.
    (message,) = [line for line in err.splitlines() if not line.startswith("malformed: ")]
    assert message.startswith("distilbench: error: ")
    assert expected.startswith(EXPECT)
    for words in expected.removeprefix(EXPECT).split(" | "):
        assert words in message
    assert len(message) < 1000
    # Neither the results folder, which is here, nor what the code and the pickles of some teachers would make.
    assert files(folder) == before
    assert not (folder / "EXECUTED").exists()
    assert not (folder.parent / "outside").exists()
    assert half_written(tmp_path / "cache") == []


NUMBERS = [
    *("batch_size", "batch_tokens", "micro_batch", "max_length"),
    *("layers", "width", "vocabulary"),
    *("steps", "sentences", "tokens", "flops", "seconds"),
    *("text.sentences", "labelled.rows", "static.width", "seeds"),
]
SECTION_OF = {
    **dict.fromkeys(NUMBERS[:4], "train"),
    **dict.fromkeys(NUMBERS[4:7], "student"),
    **dict.fromkeys(NUMBERS[7:12], "budget"),
}


@pytest.mark.parametrize("number", [2**31, 2**62, 10**30])
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_beyond_all_measure_are_planned_or_refused(
    key: str, number: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = yaml.safe_load(SOUND)
    section, _, name = f"{SECTION_OF.get(key, '')}.{key}".strip(".").rpartition(".")
    if section == "budget":
        study["budget"] = {}
    (study.setdefault(section, {}) if section else study)[name] = number
    path = tmp_path / "large.yaml"
    path.write_text(yaml.safe_dump({**study, "teacher": str(folder / "teachers/sound")}), encoding="utf-8")
    code, (_, err) = exit_code(["run", str(path), "--dry-run"]), capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("distilbench: error: ")]
    assert (code, len(errors)) in ((0, 0), (2, 1)), err


def test_the_study_that_they_are_made_from_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sound.yaml", "--dry-run"]) == 0, capsys.readouterr().err


def test_code_of_its_own_is_left_alone_where_transformers_has_its_own(folder: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(folder / "teachers" / "sound", teacher)
    shutil.copy(folder / "teachers" / "with-code-of-its-own" / "own_model.py", teacher)
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "own_model.Own", "AutoModel": "own_model.Own"}
    (teacher / "config.json").write_text(json.dumps(config), encoding="utf-8")
    before = files(folder)
    assert load_encoder(teacher).dims.layers == 4
    assert files(folder) == before
    assert not (teacher / "EXECUTED").exists()


def test_there_are_many() -> None:
    assert len(STUDIES) >= 60
