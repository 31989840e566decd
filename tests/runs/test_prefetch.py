"""A mirror is filled once, holds what the Hub gave, and is all that is needed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict, concatenate_datasets
from mteb.abstasks import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval

from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.core.sealed import damage
from distilbench.evaluation.tasks.by_name import _data_sha256, load_task
from distilbench.evaluation.tasks.fetch import store_task
from distilbench.evaluation.tasks.files import retrieval_split
from distilbench.models.finding import find_model

Writes = Callable[..., Path]
PAIRS = {"sentence1": ["a dog", "water"], "sentence2": ["a cat", "fire"], "score": [2.5, 0.0]}


@pytest.fixture
def study_file(text_file: Path, tmp_path: Path) -> Path:
    study = {
        "name": "away",
        "teacher": "org/teacher",
        "student": {"layers": 1},
        "text": {"source": str(text_file)},
        "dev": {"source": "mirror:dev.csv"},
        "budget": {"steps": 1},
        "methods": ["mse"],
        "seeds": 1,
        "tasks": ["STS12", "NFCorpus", "DistilbenchSTS"],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    return tmp_path / "study.yaml"


@pytest.fixture
def hub(teacher_folder: Path, write_beir: Writes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the Hub; what was asked of it."""
    asked: list[str] = []
    beir = write_beir(tmp_path / "beir")

    def snapshot_download(name: str, **_: object) -> str:
        asked.append(name)
        return str(teacher_folder)

    def pairs(task: Any, **_: object) -> None:
        asked.append(task.metadata.name)
        task.dataset, task.data_loaded = DatasetDict({"test": Dataset.from_dict(PAIRS)}), True

    def documents(task: Any, **_: object) -> None:
        asked.append(task.metadata.name)
        task.dataset, task.data_loaded = {"default": {"test": retrieval_split(beir, "test")}}, True

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(AbsTask, "load_data", pairs)
    monkeypatch.setattr(AbsTaskRetrieval, "load_data", documents)
    return asked


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}


def test_a_mirror_is_filled_once_and_is_enough(
    study_file: Path, hub: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "dev.csv").write_text("sentence1,sentence2\na,b\n")
    command = ["prefetch", str(study_file), "--out", str(mirror), "--json"]
    assert main(command) == 0
    there = {"DistilbenchSTS": "there", "mirror:dev.csv": "there"}
    fetched = dict.fromkeys(("org/teacher", "STS12", "NFCorpus"), "fetched")
    states = shown(capsys)
    assert {name: states[name] for name in (*there, *fetched)} == {**there, **fetched}
    assert hub == ["org/teacher", "STS12", "NFCorpus"]
    from_hub = {name: load_task(name, None).data_sha256 for name in ("STS12", "NFCorpus")}

    hub.clear()
    assert main(command) == 0
    assert set(shown(capsys).values()) == {"there"}
    assert {name: load_task(name, mirror).data_sha256 for name in from_hub} == from_hub
    found = find_model("org/teacher", mirror)
    assert hub == [] and found.name == "org/teacher"
    assert found.hashes() == find_model("org/teacher").hashes()
    source = json.loads((mirror / "mteb/sts12-sts/SOURCE.json").read_text())
    assert source["licence"] == "not specified" and len(source["revision"]) == 40
    assert all(damage(mirror / folder) is None for folder in ("org/teacher", "mteb/sts12-sts", "mteb/nfcorpus"))


def test_candidates_and_instructions_are_kept(hub: list[str], tmp_path: Path) -> None:
    task = load_task("NFCorpus", None)
    data = task.instance.dataset["default"]["test"]
    data["top_ranked"] = {query: ["d1", "d0"] for query in data["queries"]["id"]}
    data["queries"] = data["queries"].add_column("instruction", ["find"] * len(data["queries"]))
    task = replace(task, data_sha256=_data_sha256(task))

    store_task(task, tmp_path)

    ((_, _, found),) = load_task("NFCorpus", tmp_path).splits()
    assert found["top_ranked"] == data["top_ranked"]
    assert found["queries"][:] == data["queries"][:]
    assert damage(tmp_path / "mteb/nfcorpus") is None


def test_another_subset_is_added(
    study_file: Path, hub: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def pairs(task: Any, **_: object) -> None:
        scores = [float(len(subset)) for subset in task.hf_subsets]
        data = {
            subset: DatasetDict({"test": Dataset.from_dict(PAIRS | {"score": [score, ord(subset[0]) / 2]})})
            for subset, score in zip(task.hf_subsets, scores, strict=True)
        }
        task.dataset, task.data_loaded = data, True

    monkeypatch.setattr(AbsTask, "load_data", pairs)
    mirror = tmp_path / "mirror"
    command = ["prefetch", str(study_file), "dev=null", "--out", str(mirror), "--json"]
    names = [("STS17@en-en",), ("STS17@en-en", "STS17@es-es"), ("STS17@en-en", "STS17@es-es")]
    states = []
    for wanted in names:
        assert main([*command, f"tasks=[{', '.join(json.dumps(name) for name in wanted)}]"]) == 0
        states.append([state for name, state in shown(capsys).items() if name.startswith("STS17")])
    assert states == [["fetched"], ["there", "fetched"], ["there", "there"]]
    for name in names[1]:
        assert load_task(name, mirror).data_sha256 == load_task(name, None).data_sha256
    assert damage(mirror / "mteb/sts17-crosslingual-sts") is None

    def away(task: Any, **_: object) -> None:
        raise OSError("no network")

    # What was never fetched, and cannot be, is named as before.
    monkeypatch.setattr(AbsTask, "load_data", away)
    assert main([*command, 'tasks=["STS17@ko-ko"]']) == 2
    assert "lacks 1 of the subsets of STS17@ko-ko (ko-ko) and has en-en, es-es" in capsys.readouterr().out
    assert sorted(path.name for path in (mirror / "mteb/sts17-crosslingual-sts").iterdir() if path.is_dir()) == [
        "en-en",
        "es-es",
    ]


def test_what_a_mirror_would_change_is_refused(hub: list[str], tmp_path: Path) -> None:
    task = load_task("NFCorpus", None)
    data = task.instance.dataset["default"]["test"]
    data["corpus"] = concatenate_datasets([data["corpus"], data["corpus"].select([0])])
    task = replace(task, data_sha256=_data_sha256(task))
    with pytest.raises(
        UserError, match=r"NFCorpus do not fit a mirror \(.* has the id 'd0', and so has an earlier row\); use"
    ):
        store_task(task, tmp_path / "mirror")
    assert list((tmp_path / "mirror").rglob("*")) == []


def test_offline_it_says_what_is_missing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["prefetch", str(study_file), "tasks=[STS12, DistilbenchSTS]", "--out", str(tmp_path / "mirror")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "3 of 5 parts cannot be had (teacher org/teacher, dev mirror:dev.csv, task STS12;" in error
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)
    assert main(["prefetch", str(study_file)]) == 2
    assert "there is no mirror to fill; give --out DIR" in capsys.readouterr().err
