"""A study over tasks of every type, its report, and its scores in files that mteb reads and merges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytest.importorskip("mteb")

import mteb

from distilbench.cli.app import main
from distilbench.core.sealed import write_sealed
from distilbench.records.record import RECORD_FILE, Record, read_study
from tests.conftest import shut_network
from tests.evaluation.test_task_types import TASKS, official

Cli = Callable[..., tuple[int, str, str]]
STS17 = "mteb/sts17-crosslingual-sts"


@pytest.fixture(scope="module")
def scored(teacher_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was scored on a task of each type, and on two subsets of one apart."""
    place = tmp_path_factory.mktemp("scored")
    texts, mirror = list(dict.fromkeys(text_file.read_text(encoding="utf-8").splitlines())), place / "mirror"
    names = [name for name in TASKS if name != "TwentyNewsgroupsClustering"]
    for name in names:
        TASKS[name](mirror / official(name).metadata.dataset["path"], texts)
    for at, subset in enumerate(("en-en", "es-es")):
        folder = mirror / STS17 / subset
        folder.mkdir(parents=True)
        pairs = {
            "sentence1": texts[:9],
            "sentence2": texts[9 + at : 18 + at],
            "score": [float(row) for row in range(9)],
        }
        pd.DataFrame(pairs).to_parquet(folder / "test.parquet")
    values = {
        "name": "tiny",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file), "evaluation_text": "keep"},
        "budget": {"steps": 4},
        "methods": ["mse", "simcse"],
        "seeds": 1,
        "tasks": [*names, "STS17@en-en", "STS17@es-es", "DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 64},
    }
    (place / "study.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        shut_network(patch)
        patch.setenv("DISTILBENCH_CACHE", str(place / "cache"))
        options = ["--mirror", str(mirror), "--out", str(place / "results")]
        assert main(["run", str(place / "study.yaml"), *options]) == 0
    return place / "results" / "tiny"


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    """The folder of a trained student's run, in a copy of the study's."""
    results = tmp_path / "results" / "tiny"
    shutil.copytree(scored, results)
    return next(results / record.run_id for record in read_study(results) if record.role == "method")


def recorded(run: Path) -> Record:
    return next(record for record in read_study(run.parent) if record.run_id == run.name)


def test_mteb_reads_and_merges_a_runs_scores(run: Path, cli: Cli, tmp_path: Path) -> None:
    record = recorded(run)
    assert {facts["type"] for facts in record.tasks.values()} == {
        *("STS", "Classification", "PairClassification", "Clustering", "Reranking", "Summarization")
    }

    code, out, err = cli("export", run, "--mteb", "--out", tmp_path / "kept")

    assert code == 0, err
    assert "left out, as mteb does not know them: DistilbenchSTS" in err
    folder = Path(out.strip())
    assert json.loads((folder / "model_meta.json").read_text())["revision"] == record.identity["weights"]
    cache = mteb.ResultCache(tmp_path / "kept")
    (model,) = cache.load_results(include_remote=False).model_results
    assert model.model_revision == record.identity["weights"]
    found = {result.task_name: result for result in model.task_results}
    assert set(found) == {name.partition("@")[0] for name in record.scores} - {"DistilbenchSTS"}
    for name, scores in record.scores.items():
        task = name.partition("@")[0]
        if task in found and task != "STS17":
            assert found[task].get_score() == pytest.approx(scores["main_score"], abs=1e-5), name
    by_subset = {row["hf_subset"]: row["main_score"] for row in found["STS17"].scores["test"]}
    assert by_subset == pytest.approx(
        {subset: record.scores[f"STS17@{subset}"]["main_score"] for subset in ("en-en", "es-es")}, abs=1e-5
    )

    # A second time changes nothing; what mteb cannot read is named.
    assert cli("export", run, "--mteb", "--out", tmp_path / "kept")[0] == 0
    assert {path.name for path in folder.glob("*.json")} == {*(f"{name}.json" for name in found), "model_meta.json"}
    (folder / "STS17.json").write_text("{")
    code, _, err = cli("export", run, "--mteb", "--out", tmp_path / "kept")
    assert code == 2 and "STS17.json is no result of mteb" in err


def test_the_report_has_all_types_and_a_smoke_run_is_not_exported(run: Path, cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("report", run.parent, "--out", tmp_path / "reports")

    assert code == 0, err
    page = Path(out.strip()).read_text(encoding="utf-8")
    assert all(name in page for name in recorded(run).scores)
    assert "cannot be compared by example" not in page

    # A smoke run has no results.
    values = json.loads((run / RECORD_FILE).read_text(encoding="utf-8"))
    others = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.suffix == ".parquet"}

    def write(folder: Path) -> None:
        (folder / RECORD_FILE).write_text(json.dumps(values | {"limit": 8}), encoding="utf-8")
        for name, content in others.items():
            (folder / name).write_bytes(content)

    write_sealed(run, write)
    code, out, err = cli("export", run, "--mteb", "--out", tmp_path / "kept")
    assert (code, out) == (2, "") and "smoke run" in err
