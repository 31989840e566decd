"""A whole study, and its report, with every way to the network shut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from distilbench.cli.app import main
from distilbench.records.record import LISTS, read_study
from tests.conftest import shut_network

Writes = Callable[..., Path]


@pytest.mark.slow
def test_a_study_needs_no_network(
    teacher_folder: Path,
    text_file: Path,
    write_pairs: Writes,
    write_beir: Writes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = shut_network(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    study = {
        "name": "offline",
        "teacher": str(teacher_folder),
        "student": {"layers": 2},
        "text": {"source": str(text_file)},
        "budget": {"steps": 2},
        "methods": ["mse"],
        "seeds": 1,
        "tasks": [
            {"mine": {"source": str(write_pairs(tmp_path))}},
            {"search": {"source": str(write_beir(tmp_path / "set"))}},
        ],
        "train": {"batch_size": 16, "max_length": 64},
    }
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["run", "study.yaml"]) == 0
    assert main(["report", "results/offline"]) == 0
    records = read_study(Path("results/offline"))
    assert [record.status for record in records] == ["completed"] * 3
    assert tried == []
    for record in records:
        assert record.vectors["values"].keys() >= {"cka", "neighbours", "anisotropy", "sts_int8", "cosine"}
        assert record.speed["bytes"] > 0
        folder = Path("results/offline", record.run_id)
        # Copies without the lists, as in git, are as good.
        for name in LISTS:
            (folder / name).unlink()
    assert read_study(Path("results/offline")) == records
    capsys.readouterr()
    assert main(["run", "study.yaml"]) == 0
    assert capsys.readouterr().err.count("(found complete)") == 3
    (trained,) = (record for record in records if record.role == "method")
    # The six documents and two judged queries are sentences of the text, and so are all 80 texts of the pairs.
    assert trained.contamination["equal"] >= 80
    assert trained.text["sentences"] == 400 - trained.contamination["equal"] - trained.contamination["phrase"]
    assert main(["diff", *(f"results/offline/{record.run_id}" for record in records[:2]), "--json"]) == 0
    assert main(["export", f"results/offline/{trained.run_id}", "--out", "shipped"]) == 0
    assert "| search | ndcg_at_10 |" in Path("shipped/README.md").read_text()
