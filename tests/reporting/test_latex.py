"""LaTeX tables: what stands in them, and that TeX sets them within the line where it is at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import distilbench as db
from distilbench.cli.app import main
from distilbench.records.record import Record
from distilbench.reporting import Layout
from distilbench.reporting.formats.latex import ROWS, to_latex
from distilbench.reporting.formats.render import Emphasis, Table, with_digits

ENGINE = shutil.which("pdflatex") or shutil.which("tectonic")
CLASSES = {"one-column": r"\documentclass{article}", "two-column": r"\documentclass[twocolumn]{article}"}
SCORES = {"mse": 0.7, "internal-kd": 0.6, "a_method_with_a_long_name": -0.1}
Make = Callable[..., Record]
Write = Callable[..., Path]
PREAMBLE = r"\usepackage[T1]{fontenc}\usepackage{adjustbox,booktabs,siunitx}\usepackage{textcomp}"


def table(rows: int = 3, emphasis: dict[tuple[int, str], Emphasis] | None = None, notes: tuple[str, ...] = ()) -> Table:
    shown = pd.DataFrame(
        {
            "Method": [f"method_{row}" for row in range(rows)],
            "STS": [f"{(-1) ** row * (row + 0.25):.2f} ± 1.{row % 10}0" for row in range(rows)],
            "Sentences": [f"{50_048 + row:,}" for row in range(rows)],
            "Seconds": ["—" if row == 1 else f"{7.5 * (row + 1):.1f}" for row in range(rows)],
        }
    )
    order = pd.DataFrame(
        {"Method": shown["Method"], "STS": 1.0, "Sentences": 2.0, "Seconds": [3.0] * rows}, index=shown.index
    )
    return Table("made-up", "scores of a_study", shown, order, list(notes), None, emphasis or {})


def test_numbers_are_siunitx_columns_and_errors_have_their_own() -> None:
    source = to_latex(table(emphasis={(0, "STS"): "best", (2, "STS"): "second"}))

    assert r"\begin{tabular}{lS[table-format=-1.2]@{\,}lS[table-format=5.0]S[table-format=2.1]}" in source
    assert r"{Method} & \multicolumn{2}{c}{STS} & {Sentences} & {Seconds} \\" in source
    assert r"method\_0 & {\textbf{0.25}} & $\pm$ 1.00 & 50048 & 7.5 \\" in source
    assert r"method\_1 & -1.25 & $\pm$ 1.10 & 50049 & {---} \\" in source
    assert r"{\underline{2.25}} & $\pm$ 1.20" in source


def test_a_long_table_is_split_and_its_notes_come_last() -> None:
    source = to_latex(table(2 * ROWS + 1, notes=("said once",)))

    assert source.count(r"\begin{table}") == 3 and source.count("(continued)") == 2
    assert re.findall(r"\\label{(.*?)}", source) == ["tab:made-up", "tab:made-up-2", "tab:made-up-3"]
    assert source.index("said once") > source.index(r"\label{tab:made-up-3}") and source.count("said once") == 1
    assert source.count(r"method\_") == 2 * ROWS + 1


@pytest.mark.parametrize(("width", "across"), [(20, False), (60, True)])
def test_a_wide_table_stands_across_both_columns(width: int, across: bool) -> None:
    frame = pd.DataFrame({"Note": ["x" * width]})
    source = to_latex(Table("t", "c", frame, frame, [], None), "two-column")

    assert (r"\begin{table*}" in source) == across and (r"\end{table*}" in source) == across


def test_the_layout_is_asked_for_on_the_command_line(
    make: Make, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found = write([make("mse", seed, (0.7, 0.6, 0.5)) for seed in range(2)]), {}
    for layout in CLASSES:
        assert main(["report", str(folder), "--out", str(tmp_path / layout), "--layout", layout]) == 0
        found[layout] = (tmp_path / layout / folder.name / "tables" / "main.tex").read_text(encoding="utf-8")
    assert r"\begin{table*}" not in found["one-column"] and r"\begin{table*}" in found["two-column"]
    assert main(["report", str(folder), "--layout", "three"]) == 2
    assert "invalid choice: 'three'" in capsys.readouterr().err


def test_the_main_table_has_the_columns_that_are_asked_for(
    make: Make, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write([make("mse", seed, (0.7, 0.6, 0.5)) for seed in range(2)])
    asked = ["method", "n", "STS average"]
    assert main(["report", str(folder), "--out", str(tmp_path / "out"), "--columns", *asked]) == 0
    tables = tmp_path / "out" / folder.name / "tables"
    assert (
        "{Method} & {n} & " in (tables / "main.tex").read_text() and "TFLOPs" not in (tables / "main.tex").read_text()
    )
    assert "TFLOPs" in (tables / "main.md").read_text()
    assert db.report(folder, tmp_path / "api", columns=["Method"], layout="two-column")
    assert r"\begin{tabular}{l}" in (tmp_path / "api" / folder.name / "tables" / "main.tex").read_text()
    capsys.readouterr()
    assert main(["report", str(folder), "--out", str(tmp_path / "out"), "--columns", "STS avrage"]) == 2
    assert "did you mean 'STS average'" in capsys.readouterr().err


def test_the_main_table_leaves_costs_to_the_table_of_costs(make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make("mse", seed, (0.7, 0.6, 0.5)) for seed in range(2)])
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    tables = tmp_path / "out" / folder.name / "tables"
    assert "Training" not in (tables / "main.tex").read_text() and "Training" in (tables / "main.md").read_text()
    assert "Training" in (tables / "costs.tex").read_text()


def test_decimals_are_rounded_once() -> None:
    text = pd.DataFrame({"Row": ["1.25"], "Score": ["70.45 ± 1.26"], "Seconds": ["1,234.57"], "n": ["5"], "no": ["—"]})
    order = pd.DataFrame({"Row": ["1.25"], "Score": [70.4489], "Seconds": [1234.567], "n": [5], "no": [float("nan")]})
    short = with_digits(Table("t", "c", text, order, [], None), 1)
    assert list(short.text.iloc[0]) == ["1.25", "70.4 ± 1.3", "1,234.6", "5", "—"]


@pytest.mark.skipif(ENGINE is None, reason="no TeX is installed here")
@pytest.mark.parametrize("layout", list(CLASSES))
def test_no_table_is_wider_than_its_place(layout: Layout, make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make(label, seed, (score, 0.6, score / 2)) for label, score in SCORES.items() for seed in range(3)])
    assert main(["report", str(folder), "--out", str(tmp_path), "--layout", layout]) == 0
    notes = ("a/path/that/goes/on/" * 9, "long_word_" * 30)
    made = [to_latex(table(3, {(0, "STS"): "best"}, notes), layout), to_latex(table(2 * ROWS), layout)]
    made += [path.read_text(encoding="utf-8") for path in sorted((tmp_path / folder.name / "tables").glob("*.tex"))]
    whole = "\n\\clearpage\n".join(made)
    (tmp_path / "all.tex").write_text(
        f"{CLASSES[layout]}{PREAMBLE}\\begin{{document}}\n{whole}\n\\end{{document}}\n", encoding="utf-8"
    )

    assert ENGINE is not None
    run = subprocess.run(
        [ENGINE, "-interaction=nonstopmode", "all.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )

    log = (
        (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace") if ENGINE.endswith("latex") else run.stderr
    )
    assert run.returncode == 0, "\n".join(line for line in log.splitlines() if line.startswith("!"))
    assert [line for line in log.splitlines() if line.startswith("Overfull \\hbox")] == []
