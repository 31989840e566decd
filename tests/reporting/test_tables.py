from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from distilbench.analysis.frame import make_study
from distilbench.core.errors import UserError
from distilbench.core.escape import escape_latex
from distilbench.records.record import Record
from distilbench.reporting import summary
from distilbench.reporting.cells import number
from distilbench.reporting.formats.latex import to_latex
from distilbench.reporting.formats.render import Table, to_markdown
from distilbench.reporting.page.assemble import to_html
from distilbench.reporting.prose import paragraph, settings_table
from distilbench.reporting.tables import scores as tables

Make = Callable[..., Record]
NASTY = "<script>a_b&c|${}"


def cells(table: Table) -> pd.DataFrame:
    return table.text.set_index("Method")


def test_rows_are_ceiling_methods_by_score_floor(plain: list[Record]) -> None:
    table = tables.main_table(make_study("demo", plain[::-1]))

    assert list(table.text["Method"]) == ["ceiling (teacher)", "mse", "simcse", "floor (student before training)"]


def test_main_table_by_hand(plain: list[Record]) -> None:
    row = cells(tables.main_table(make_study("demo", plain))).loc["simcse"]

    # STS: seeds 0.55 and 0.50, half-width 12.706 * 0.035355 / sqrt(2); overall 1.4/3 and 1.3/3.
    assert row["STS average"] == "52.50 ± 31.77"
    assert row["Retrieval average"] == "30.00 ± 0.00"
    assert row["Mean (Task)"] == "45.00 ± 21.18"
    # Floor 0.2 in both seeds, ceiling 0.8: (0.26667 + 0.23333) / 2 / 0.6.
    assert row["Gap closed (%)"] == "41.7 ± 35.3"
    assert (row["n"], row["Status"]) == ("2", "2/2 completed")
    assert (row["Training (s)"], row["Student TFLOPs"], row["Sentences"]) == ("40", "4", "12,800")


def test_gap_is_measured_from_the_floor_of_the_same_seed(plain: list[Record]) -> None:
    gaps = make_study("demo", plain).gaps

    assert gaps.at["mse-1", "STS-A"] == pytest.approx((0.6 - 0.2) / (0.8 - 0.2))
    assert gaps.at["mse-2", "STS-A"] == pytest.approx((0.7 - 0.3) / (0.8 - 0.3))


def test_gap_falls_back_to_the_mean_floor_and_says_so(plain: list[Record], make: Make) -> None:
    study = make_study("demo", [*plain, make("mse", 3, (0.6, 0.7, 0.5))])

    assert study.gaps.at["mse-3", "STS-A"] == pytest.approx((0.6 - 0.25) / (0.8 - 0.25))
    assert any("mean of the floor runs" in note and "mse (seed 3)" in note for note in tables.main_table(study).notes)


def test_one_seed_has_no_interval(make: Make) -> None:
    table = tables.main_table(make_study("demo", [make("mse", 1, (0.6, 0.7, 0.5))]))

    assert cells(table).at["mse", "Mean (Task)"] == "60.00"
    assert cells(table).at["mse", "Gap closed (%)"] == "—"
    assert any("student before training comparable with it was not evaluated" in note for note in table.notes)


def test_diverged_failed_and_missing_runs_are_shown(plain: list[Record], make: Make) -> None:
    diverged = make("mse", 3, None, status="diverged", error="loss is not a number")
    failed = make("codir", 1, None, status="failed")
    table = tables.main_table(make_study("demo", [*plain, diverged, failed]))
    status = cells(table)["Status"]

    assert status["mse"] == "2/3 completed, 1/3 diverged"
    assert status["simcse"] == "2/3 completed, 1/3 missing"
    assert status["codir"] == "1/3 failed, 2/3 missing"
    assert list(cells(table).loc["codir", ["Mean (Task)", "Gap closed (%)", "n", "Training (s)"]]) == [
        "—",
        "—",
        "0",
        "—",
    ]
    assert any("codir: 1/3 failed, 2/3 missing" in note for note in table.notes)


def test_all_runs_failed(make: Make) -> None:
    study = make_study("demo", [make("mse", 1, None, status="failed")])

    assert list(tables.main_table(study).text["Status"]) == ["1/1 failed"]
    assert tables.score_frame(study).empty


def test_unequal_task_sets_are_not_averaged(plain: list[Record], make: Make) -> None:
    table = tables.main_table(make_study("demo", [*plain, make("short", 1, (0.9, 0.9)), make("short", 2, (0.9, 0.9))]))

    assert cells(table).at["short", "STS average"] == "90.00 ± 0.00"
    assert list(cells(table).loc["short", ["Mean (Task)", "Retrieval average"]]) == ["—", "—"]
    assert any("short (seed 1) lacks Search" in note for note in table.notes)


def test_mixed_settings_are_split_and_explained(plain: list[Record], make: Make) -> None:
    other = make("mse", 3, (0.9, 0.9, 0.9), budget={"currency": "sentences", "amount": 25600})
    study = make_study("demo", [*plain, other])
    table = tables.main_table(study)

    assert cells(table).at["mse [a]", "Mean (Task)"] == "60.00 ± 0.00"
    assert cells(table).at["mse [b]", "Mean (Task)"] == "90.00"
    assert {"ceiling (teacher)", "floor (student before training)"} <= set(table.text["Method"])
    for made in (table, tables.task_table(study), tables.cost_table(study)):
        assert any("budget amount: [a] 12800, [b] 25600" in note for note in made.notes)
    assert "12,800 (4 runs) / 25,600 (1 run)" in paragraph(study)


def test_different_machines_make_seconds_incomparable(plain: list[Record], make: Make) -> None:
    plain[1].environment["device"] = "cuda"

    assert any("device (cpu, cuda)" in note for note in tables.main_table(make_study("demo", plain)).notes)


def test_a_limited_run_marks_every_table(make: Make) -> None:
    study = make_study("demo", [make("mse", 1, (0.6, 0.7, 0.5), limit=50)])
    mark = "smoke run (--limit 50): not a result"

    for table in (tables.main_table(study), tables.task_table(study), tables.cost_table(study), settings_table(study)):
        assert table.mark == mark
        assert mark in to_markdown(table) and mark in to_html(table)
        assert r"smoke run (--limit 50): not a result" in to_latex(table)
    assert mark in paragraph(study)


def test_task_table_names_the_metric(plain: list[Record]) -> None:
    text = cells(tables.task_table(make_study("demo", plain)))

    assert list(text) == ["STS-A (cosine_spearman)", "STS-B (cosine_spearman)", "Search (ndcg_at_10)"]
    assert text.at["mse", "Search (ndcg_at_10)"] == "45.00 ± 63.53"


def test_cost_table_shows_all_entries_and_dashes_for_missing_ones(plain: list[Record]) -> None:
    plain[1].ledger["carbon"] = 7
    plain[2].ledger["carbon"] = 9
    text = cells(tables.cost_table(make_study("demo", plain)))

    assert text.at["mse", "carbon"] == "8"
    assert text.at["mse", "Peak memory (MiB)"] == "256"
    assert text.at["simcse", "carbon"] == "—"
    assert text.at["mse", "Extra parameters"] == "—"


def test_one_run_on_a_busy_machine_does_not_make_a_method_slow(make: Make) -> None:
    records = [make("mse", seed, (0.6, 0.7, 0.5)) for seed in (1, 2, 3)]
    for record, seconds in zip(records, (40.0, 5000.0, 42.0), strict=True):
        record.ledger["seconds"] = {"train": seconds}
    study = make_study("demo", records)

    assert cells(tables.main_table(study)).at["mse", "Training (s)"] == "42"
    assert cells(tables.cost_table(study)).at["mse", "Training (s)"] == "42"
    assert tables.label_frame(study)["seconds_train"].tolist() == [42.0]


def test_csv_frames_are_unrounded(plain: list[Record]) -> None:
    study = make_study("demo", plain)
    main = pd.read_csv(io.StringIO(tables.label_frame(study).to_csv())).set_index("row")
    runs = pd.read_csv(io.StringIO(tables.run_frame(study).to_csv())).set_index("run_id")
    scores = tables.score_frame(study)

    assert main.at["simcse", "average:Mean (Task):mean"] == pytest.approx(0.45, abs=1e-15)
    assert main.at["simcse", "average:Mean (Task):half_width"] == pytest.approx(0.21177007893624, abs=1e-12)
    assert len(runs) == len(plain)
    assert runs.at["simcse-1", "average:Mean (Task)"] == pytest.approx(1.4 / 3, abs=1e-15)
    assert runs.at["simcse-1", "student_flops"] == 4e12
    assert len(scores) == 3 * len(plain)


def test_names_are_escaped(make: Make) -> None:
    table = tables.main_table(make_study("demo", [make(NASTY, 1, (0.6, 0.7, 0.5))]))

    assert "<script>" not in to_html(table) and "&lt;script&gt;a_b&amp;c" in to_html(table)
    assert r"\textless{}script\textgreater{}a\_b\&c\textbar{}\$\{\}" in to_latex(table)
    assert r"| &lt;script&gt;a_b&amp;c\|\${} |" in to_markdown(table)


def test_latex_escapes_every_special_character() -> None:
    assert escape_latex("\\ 5% #1 ~ ^ 1 ± 2 —") == (
        r"\textbackslash{} 5\% \#1 \textasciitilde{} \textasciicircum{} 1 $\pm$ 2 ---"
    )


def test_numbers_in_latex_have_real_minus_signs() -> None:
    cells = ["-4.8 ± 5.1", "0.3 (-0.2 to 1.1)", "internal-kd", "2026-11-28", "2-3", "-"]
    frame = pd.DataFrame({"cell": cells})
    rows = to_latex(Table("t", "cells", frame, frame, [], None)).split("\\midrule\n")[1].splitlines()[: len(cells)]
    assert [row.removesuffix(r" \\") for row in rows] == [
        r"$-$4.8 $\pm$ 5.1",
        "0.3 ($-$0.2 to 1.1)",
        *cells[2:],
    ]


def test_html_cells_sort_by_numbers(plain: list[Record]) -> None:
    found = re.findall(r'data-sort="([^"]*)">([^<]*)<', to_html(tables.main_table(make_study("demo", plain))))

    assert all(float(order) == pytest.approx(float(re.split("[ ,]", text)[0]), abs=0.06) for order, text in found[:5])


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "—"), (0.0, "0"), (40.123, "40.1"), (999.7, "1,000"), (12800.0, "12,800")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_without_examples_the_interval_says_what_it_leaves_out(plain: list[Record]) -> None:
    table = tables.main_table(make_study("demo", plain))

    assert any("seeds only" in note and "n = 1 to 2" in note for note in table.notes)
    assert "**" not in to_markdown(table) and "textbf" not in to_latex(table)


def test_paragraph_states_the_settings(plain: list[Record]) -> None:
    text = paragraph(make_study("demo", plain))

    for part in ("teacher-l6 (6 layers", "budget of 12,800 sentences", "mteb 2.20", "Of 4 training runs 4 completed"):
        assert part in text


def test_paragraph_states_what_was_chosen_of_batches_and_signals(plain: list[Record]) -> None:
    chosen = [replace(record, train={**record.train, "batch_tokens": 2048, "signals": "int8"}) for record in plain]
    text = paragraph(make_study("demo", chosen))
    assert "with batch size 128 or 2,048 padded tokens, whichever is less, learning rate" in text
    assert "The teacher's vectors were stored in int8. " in text
    default = [replace(record, train={**record.train, "batch_tokens": None, "signals": "float32"}) for record in plain]
    for records in (plain, default):
        assert "padded" not in (usual := paragraph(make_study("demo", records))) and "stored" not in usual


def test_paragraph_states_the_precision_of_scores_where_it_is_not_full(plain: list[Record]) -> None:
    half = [
        replace(record, tasks={name: {**facts, "precision": "bf16"} for name, facts in record.tasks.items()})
        for record in plain
    ]
    assert "Models were evaluated in bf16 with mteb" in paragraph(make_study("demo", half))
    assert "Models were evaluated with mteb" in paragraph(make_study("demo", plain))


def test_the_summary_has_one_cost(plain: list[Record], tmp_path: Path) -> None:
    table, _ = summary(plain, tmp_path)
    assert list(table.text)[-1] == "Training (s)" and list(table.order) == list(table.text)
    assert "60.00 ± 0.00" in table.text.to_numpy() and "2/2 completed" in table.text.to_numpy()


def test_the_summary_needs_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        summary([], tmp_path)


def test_one_run_id_twice_is_refused(plain: list[Record]) -> None:
    with pytest.raises(UserError, match="two records of run mse-1"):
        make_study("demo", [*plain, plain[1]])
