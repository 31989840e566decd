"""A small study, on disk and in memory, the command line, and what the training by each method works on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import methods
from bench.budget import Budget
from bench.cli import main
from bench.settings import Settings
from bench.study import Study
from bench.train import Cell
from bench.workbench import Workbench
from methods.base import Method

Cli = Callable[..., tuple[int, str, str]]
MakeCell = Callable[..., Cell]
SMALL: dict[str, dict[str, Any]] = {
    "hpd": {"width": 8},
    "ckd": {"queue_size": 32},
    "minilm": {"relation_heads": 4},
    "matryoshka": {"widths": (8,)},
}
"""Settings that fit models as small as those of these tests."""


Writes = Callable[..., Path]


@pytest.fixture(scope="session")
def write_pairs(text_file: Path) -> Writes:
    """Writes 40 pairs with scores, other scores for another seed."""
    texts = text_file.read_text(encoding="utf-8").splitlines()

    def write(folder: Path, seed: int = 0) -> Path:
        scores = np.random.default_rng(seed).random(40)
        frame = pd.DataFrame({"sentence1": texts[:40], "sentence2": texts[40:80], "score": scores})
        frame.to_csv(folder / "pairs.csv", index=False)
        return folder / "pairs.csv"

    return write


@pytest.fixture(scope="session")
def write_beir(text_file: Path) -> Writes:
    """Writes six documents and three queries, of which two are judged, in BEIR's own layout."""
    texts = text_file.read_text(encoding="utf-8").splitlines()

    def write(folder: Path) -> Path:
        (folder / "qrels").mkdir(parents=True)
        corpus = [{"_id": f"d{n}", "title": "", "text": text, "metadata": {}} for n, text in enumerate(texts[:6])]
        queries = [{"_id": f"q{n}", "text": text, "metadata": {}} for n, text in enumerate(texts[6:9])]
        for name, rows in {"corpus": corpus, "queries": queries}.items():
            (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        judged = "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td3\t2\nq1\td1\t1\n"
        (folder / "qrels" / "test.tsv").write_text(judged)
        return folder

    return write


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs distilbench in an empty folder with an empty cache; gives the exit code, the output and the errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def study(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Writes:
    """Writes a study that takes seconds, with some sections changed."""

    def write(**changes: Any) -> Path:
        values = {
            "name": "tiny",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            "text": {"source": str(text_file)},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 4},
            "methods": ["mse"],
            "seeds": 1,
            "tasks": ["DistilbenchSTS"],
            "train": {"batch_size": 16, "max_length": 64},
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return write


@pytest.fixture
def bench(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Workbench:
    study = Study.model_validate(
        {
            "name": "x",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            # To look for evaluation text would load the tasks, which most tests do without.
            "text": {"source": str(text_file), "evaluation_text": "keep"},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 6},
            "methods": [{name: SMALL.get(name, {})} for name in methods.registry()],
            "seeds": 2,
            "tasks": ["embedded"],
            "train": {"batch_size": 16},
        }
    )
    return Workbench(study, Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu"))


@pytest.fixture
def make_cell(bench: Workbench) -> MakeCell:
    def make(method: Method | str, seed: int = 1, budget: Budget | None = None, **settings: Any) -> Cell:
        chosen = methods.load(method)(**{**SMALL.get(method, {}), **settings}) if isinstance(method, str) else method
        needs = chosen.needs(bench.dims)
        return Cell(
            method=chosen,
            student=bench.student(seed),
            teacher=bench.teacher,
            text=bench.text_of(needs),
            store=bench.store_of(needs),
            spec=bench.study.train,
            budget=budget or bench.budget,
            seed=seed,
        )

    return make
