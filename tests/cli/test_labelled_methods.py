"""Methods of labelled texts, from the command line to their terms and costs; scores that no student can reach."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distilbench.records.record import CURVE_FILE, Record, read_study
from tests.conftest import Cli, Writes

COLUMNS = ["anchor", "positive", "negative"]
ROWS: dict[str, tuple[set[str], int, int]] = {
    "match-nce-gor": ({"contrastive", "matching", "spread"}, 3, 2),
    "embeddinggemma": ({"contrastive", "matching", "spread"}, 3, 3),
    "dual-supervision": ({"pair", "in_batch"}, 3, 3),
    "embed-distill": ({"contrastive", "score", "query", "document"}, 2, 2),
}
"""Row -> terms of its loss, texts of a row that pass the student, and those whose teacher's vectors it reads."""


def records(folder: Path) -> dict[str, Record]:
    return {record.label: record for record in read_study(folder) if record.role == "method"}


@pytest.mark.slow
def test_methods_on_labelled_texts_from_study_to_record(
    cli: Cli, study: Writes, labelled_file: Path, tmp_path: Path
) -> None:
    labelled = {"source": str(labelled_file), "columns": COLUMNS}
    rows = [*ROWS, {"wide": {"method": "matryoshka", "base": "embed-distill", "widths": [8]}}]
    code, _, err = cli("run", study(methods=rows, labelled=labelled), "--out", tmp_path)
    assert code == 0, err
    found = records(tmp_path / "tiny")
    assert {record.status for record in found.values()} == {"completed"}
    for label, (terms, texts, read) in ROWS.items():
        record = found[label]
        curve = pd.read_parquet(tmp_path / "tiny" / record.run_id / CURVE_FILE)
        assert {name.removeprefix("term_") for name in map(str, curve) if name.startswith("term_")} == terms
        # 4 steps of 16 rows.
        assert record.ledger["sentences"] == 4 * 16 * texts
        assert record.ledger["teacher_sentences_stored"] == 4 * 16 * read
    assert found["embeddinggemma"].hyperparameters["hardness"] == 5


def scored_file(folder: Path, labelled_file: Path, good: float, bad: float) -> Path:
    table = pd.read_csv(labelled_file)
    table["good"], table["bad"] = 0.4 * good, bad
    table.loc[7, "good"] = good
    path = folder / "scored.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("row", "cured"),
    [
        ("margin-mse", {"margin-mse": {"similarity": "dot"}}),
        ({"margin-mse": {"scale": 5}}, None),
        ("dual-supervision", None),
        ({"matryoshka": {"base": "margin-mse", "widths": [8]}}, None),
    ],
)
def test_margins_that_no_student_can_reach_are_refused(
    row: Any, cured: Any, cli: Cli, study: Writes, labelled_file: Path, tmp_path: Path
) -> None:
    source = scored_file(tmp_path, labelled_file, good=9.5, bad=-4.711)
    labelled = {"source": str(source), "columns": COLUMNS, "scores": ["good", "bad"]}
    code, _, err = cli("run", study(methods=["mse", row], labelled=labelled, budget={"steps": 1}))
    scale = row[next(iter(row))].get("scale", 1) if isinstance(row, dict) else 1
    label = row if isinstance(row, str) else next(iter(row))
    assert code == 2
    assert (
        f"method {label} cannot run in this study: the labelled text has margins of up to 14.2 between its scores, "
        f"and cosines times scale {scale} differ by {2 * scale} at most"
    ) in err
    assert not (tmp_path / "results" / "tiny").exists() or not records(tmp_path / "results" / "tiny")
    told = re.search(r"set scale to ([\d.]+) or more, or similarity to dot", err)
    assert told is not None and float(told[1]) == 7.11
    if cured is None:
        settings = {"scale": float(told[1])}
        cured = {"matryoshka": {**row["matryoshka"], "base_settings": settings}} if label == "matryoshka" else None
        cured = cured or {label: settings}
    code, _, err = cli("run", study(methods=[cured], labelled=labelled, budget={"steps": 1}))
    assert code == 0, err


def test_margins_within_reach_and_cosines_of_the_teacher_are_fine(
    cli: Cli, study: Writes, labelled_file: Path, tmp_path: Path
) -> None:
    source = scored_file(tmp_path, labelled_file, good=1.0, bad=-1.0)
    for scores in (["good", "bad"], []):
        labelled = {"source": str(source), "columns": COLUMNS, "scores": scores}
        code, _, err = cli("run", study(methods=["margin-mse"], labelled=labelled, budget={"steps": 1}))
        assert code == 0, err
