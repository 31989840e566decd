from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest

import distilbench_methods
from distilbench.analysis.frame import StudyFrames, make_study, row_names
from distilbench.records.published import PublishedRow, PublishedTable, load_published
from distilbench.records.record import Record
from distilbench.reporting.formats.latex import to_latex
from distilbench.reporting.formats.render import Table, to_markdown
from distilbench.reporting.page.assemble import to_html
from distilbench.reporting.reproduction.ledger import reproduction_tables
from distilbench.reporting.reproduction.protocol import differences
from distilbench.reporting.reproduction.published_order import judge
from tests.reporting.conftest import make_facts

Make = Callable[..., Record]

STS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
SIZES = dict(zip(STS, (3108, 1500, 3750, 3000, 1186, 1379, 9927), strict=True))
ROUNDING = 0.0101
"""A stated average and the cells are both rounded to two digits."""

TABLES = load_published()
ROWS = [(table, row) for table in TABLES for row in table.rows]


def on_sts(make: Make, label: str, seed: int, values: float | Iterable[float], **changes: Any) -> Record:
    """A run with main scores on the STS tasks in order; one number stands for all seven."""
    numbers = [values] * len(STS) if isinstance(values, float) else list(values)
    scores = {task: {"main_score": number} for task, number in zip(STS, numbers, strict=False)}
    tasks = {task: {**make_facts(task, "STS"), "examples": SIZES[task]} for task in scores}
    stated: dict[str, Any] = {"scores": scores, "tasks": tasks}
    return dataclasses.replace(make(label, seed, None), **(stated | changes))


def study_of(make: Make, **scores: float | Iterable[float]) -> StudyFrames:
    """One seed of each method, underscores in the labels for hyphens."""
    return make_study("demo", [on_sts(make, name.replace("_", "-"), 1, value) for name, value in scores.items()])


def by_name(tables: list[Table]) -> dict[str, Table]:
    return {table.name: table for table in tables}


def column(table: Table, key: str, value: str) -> dict[str, str]:
    return dict(zip(table.text[key], table.text[value], strict=True))


def outcomes(tables: list[Table]) -> dict[str, str]:
    return column(tables[0], "Published table", "Outcome")


def key(study: StudyFrames, label: str) -> str:
    return str(study.rows.index[study.rows["label"] == label][0])


# The facts.


def test_tables_have_names_of_their_own() -> None:
    assert len({table.id for table in TABLES}) == len(TABLES)
    assert all(re.fullmatch(r"[a-z0-9-]+", table.id) for table in TABLES)
    assert {table.kind for table in TABLES} == {"paper", "mteb"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_a_table_says_where_it_is_from(table: PublishedTable) -> None:
    assert table.title and table.obtained and table.source.paper and table.protocol.family
    assert table.source.arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", table.source.arxiv)
    assert table.kind == "mteb" or table.source.year in range(2019, 2026)
    assert str(table.source.year or "") in str(table.source)
    for said in (*table.caveats, *vars(table.protocol).values()):
        assert said is None or (isinstance(said, str) and said)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda item: getattr(item, "label", None) or item.id)
def test_every_cell_is_a_number_under_a_known_task(table: PublishedTable, row: PublishedRow) -> None:
    names = [task.name for task in table.tasks]
    assert len(set(names)) == len(names) and list(row.scores) == [name for name in names if name in row.scores]
    assert all(type(score) is float and 0 < score < 100 for score in row.scores.values())
    assert row.scores or row.average is not None
    assert row.method is None or row.method in {*distilbench_methods.BUILT_IN, *distilbench_methods.VARIANTS}
    assert row.role in ("teacher", "student", "other") and (row.method is None or row.role == "student")
    for size in (row.parameters, row.width):
        assert size is None or (type(size) is int and size > 0)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda item: getattr(item, "label", None) or item.id)
def test_stated_averages_follow_from_the_cells_where_it_is_said(table: PublishedTable, row: PublishedRow) -> None:
    if row.average is None or not row.scores:
        assert row.average_follows
        return
    off = abs(row.mean([task.name for task in table.tasks]) - row.average)
    assert (off <= ROUNDING) == row.average_follows


def test_averages_that_do_not_follow_are_the_known_ones() -> None:
    assert {row.label for _, row in ROWS if not row.average_follows} == {
        "MiniLM-HPD",
        "MiniLM-CRD",
        "MiniLM-IBKD",
        "SBERT-base",
    }


def test_the_papers_sick_is_the_test_set() -> None:
    sizes = {table.id: task.examples for table in TABLES for task in table.tasks if task.name == "SICK-R"}

    assert sizes.pop("mteb-all-minilm-l6-v2") == sizes.pop("mteb-all-mpnet-base-v2") == 9927
    assert len(sizes) == 5 and set(sizes.values()) == {4927}


def test_mteb_figures() -> None:
    rows = {row.label: row for table, row in ROWS if table.kind == "mteb"}
    some = ("STS12", "SICK-R", "NFCorpus", "SciFact")

    assert {label: [row.scores[name] for name in some] for label, row in rows.items()} == {
        "all-MiniLM-L6-v2": [72.369, 77.582, 31.594, 64.508],
        "all-mpnet-base-v2": [72.6343, 80.5854, 33.289, 65.57],
    }
    assert rows["all-MiniLM-L6-v2"].mean(STS) == pytest.approx(552.554 / 7)
    assert rows["all-mpnet-base-v2"].mean(STS) == pytest.approx(563.8195 / 7)


def test_mteb_figures_are_of_the_same_data() -> None:
    first, second = (table.tasks for table in TABLES if table.kind == "mteb")

    assert first == second
    assert all(task.examples and task.content for task in first)


# The ledger.


def test_scores_and_gaps_by_hand(make: Make) -> None:
    runs = [on_sts(make, label, seed, value) for label, seed, value in [("mse", 1, 0.6), ("mse", 2, 0.7)]]
    runs += [on_sts(make, "ibkd", seed, [value] * 6 + [0.01]) for seed, value in [(1, 0.7), (2, 0.8)]]
    table = by_name(reproduction_tables(make_study("demo", runs)))["reproduction_ibkd-sts"]
    ibkd = table.text.set_index("Method").loc["ibkd"]

    # Cells of MiniLM-IBKD: 579.79 / 7; of MiniLM-MSE: 555.13 / 7. Here (6 x 75 + 1) / 7 against 65.
    assert ibkd["Published as"] == "MiniLM-IBKD"
    assert (ibkd["Published, 7 tasks"], ibkd["Published gap"]) == ("82.83", "3.52")
    # Seeds 60.142857 and 68.714286: half-width 12.7062 * 8.571429 / 2.
    assert (ibkd["Here, shared tasks"], ibkd["Gap here"], ibkd["n"]) == ("64.43 ± 54.46", "-0.57", "2")
    assert "Gaps are to mse." in table.notes and "Published, shared tasks" not in table.text
    assert table.order["Published gap"].tolist() == pytest.approx([0, 24.66 / 7])


def test_pairs_by_hand(make: Make) -> None:
    tables = reproduction_tables(study_of(make, mse=0.60, ibkd=0.70, hpd=0.65, crd=0.50))
    pairs = by_name(tables)["reproduction_ibkd-sts_pairs"]

    # Published: ibkd 579.79, hpd 574.13, crd 565.93, mse 555.13, each / 7.
    assert column(pairs, "Pair", "Published difference") == {
        "hpd - mse": "+2.71",
        "crd - mse": "+1.54",
        "ibkd - mse": "+3.52",
        "hpd - crd": "+1.17",
        "ibkd - hpd": "+0.81",
        "ibkd - crd": "+1.98",
    }
    assert column(pairs, "Pair", "Difference here")["crd - mse"] == "-10.00"
    orders = column(pairs, "Pair", "Order")
    assert orders.pop("crd - mse") == "disagrees" and set(orders.values()) == {"agrees"}
    assert outcomes(tables)["IBKD's table of students on STS"] == "partly reproduced"
    assert list(tables[0].text.iloc[0])[1:7] == ["4", "7", "6", "5", "1", "0"]
    for table in (tables[0], pairs):
        assert "Order by the sign of the mean difference, not tested for significance." in table.notes


@pytest.mark.parametrize(
    ("ibkd", "outcome"), [(0.7, "reproduced"), (0.5, "not reproduced"), (0.6, "undecided"), (None, "not comparable")]
)
def test_outcomes(make: Make, ibkd: float | None, outcome: str) -> None:
    failed = {"status": "failed", "scores": {}, "tasks": {}} if ibkd is None else {}
    runs = [on_sts(make, "mse", 1, 0.6), on_sts(make, "ibkd", 1, ibkd or 0.0, **failed)]
    tables = reproduction_tables(make_study("demo", runs))

    assert outcomes(tables)["IBKD's table of students on STS"] == outcome
    assert tables[1].caption == f"demo: beside IBKD's table of students on STS: {outcome}"
    assert ("reproduction_ibkd-sts_pairs" in by_name(tables)) == (ibkd is not None)
    if ibkd is None:
        assert any("fewer than two of the shared methods have a score" in note for note in tables[1].notes)


def test_only_shared_tasks_are_compared(make: Make) -> None:
    table = by_name(reproduction_tables(study_of(make, mse=[0.6, 0.5], ibkd=[0.6, 0.7])))["reproduction_ibkd-sts"]
    ibkd = table.text.set_index("Method").loc["ibkd"]

    # STS12 and STS13: (76.77 + 86.13) / 2 against (73.75 + 81.42) / 2.
    assert (ibkd["Published, 7 tasks"], ibkd["Published, shared tasks"]) == ("82.83", "81.45")
    assert table.order["Published gap"].tolist() == pytest.approx([0, 3.865])
    assert ibkd["Gap here"] == "10.00"
    assert any("Shared tasks: STS12, STS13." in note for note in table.notes)
    assert "Not scored here: STS14, STS15, STS16, STSBenchmark, SICK-R." in table.notes


def test_other_tasks_and_other_metrics_are_not_comparable(make: Make) -> None:
    tasks = {"STS12": {**make_facts("STS12", "STS"), "main_metric": "cosine_pearson"}}
    other = [on_sts(make, label, 1, [0.5], tasks=tasks) for label in ("mse", "ibkd")]
    for runs in (other, [make(label, 1, (0.6, 0.7, 0.5)) for label in ("mse", "ibkd")]):
        tables = reproduction_tables(make_study("demo", runs))

        assert set(outcomes(tables).values()) == {"not comparable"}
        assert [table.name for table in tables[1:]] == ["reproduction_ibkd-sts", "reproduction_ibkd-msmarco"]
        assert list(tables[1].text["Here, shared tasks"]) == ["—", "—"]
        assert list(tables[1].text["Published gap"]) == ["0.00", "3.52"]
        assert list(tables[2].text["Published, 1 task"]) == ["28.12", "37.49"]
        assert any("(STS) were not scored here by its metric" in note for note in tables[1].notes)


def test_glue_is_not_comparable(make: Make) -> None:
    tables = reproduction_tables(study_of(make, codir=0.6, tinybert=0.5, minilm=0.7))
    table = by_name(tables)["reproduction_codir-glue"]

    assert outcomes(tables) == {"CoDIR beside other six-layer students on GLUE": "not comparable"}
    # MNLI-mm is left out: TinyBERT has no figure for it. CoDIR: (65.6+53.6+89.4+93.6+90.4+89.1+83.6) / 7.
    assert column(table, "Published as", "Published, 7 tasks")["CoDIR, fine-tuning only"] == "80.76"
    assert any("teacher is RoBERTa-base" in note for note in table.notes)


def test_a_row_that_lacks_a_shared_task_is_in_no_pair(make: Make) -> None:
    tables = by_name(reproduction_tables(study_of(make, mse=0.6, ibkd=0.7, hpd=[0.9] * 6)))

    assert column(tables["reproduction_ibkd-sts"], "Method", "Here, shared tasks")["hpd"] == "—"
    assert list(tables["reproduction_ibkd-sts_pairs"].text["Pair"]) == ["ibkd - mse"]


def test_fewer_than_two_methods_share_nothing(plain: list[Record]) -> None:
    assert reproduction_tables(make_study("demo", plain)) == []
    assert reproduction_tables(make_study("demo", plain[:1])) == []


def test_encoders_are_not_mixed(make: Make) -> None:
    tables = reproduction_tables(study_of(make, simcse=0.5, simcse_supervised=0.6))
    pairs = by_name(tables)["reproduction_simcse-sts_pairs"]

    assert column(pairs, "Encoder there", "Published difference") == {
        "BERT-base": "+5.33",
        "RoBERTa-base": "+5.95",
        "RoBERTa-large": "+4.86",
    }
    assert outcomes(tables) == {"SimCSE's table on STS": "reproduced"}


def test_labels_that_name_another_method_are_not_matched(make: Make) -> None:
    runs = [on_sts(make, "mse", 1, 0.5), on_sts(make, "ibkd", 1, 0.6, method="mse")]
    recipe = on_sts(make, "ibkd", 1, 0.6, method="ibkd+ibkd-supervised", identity={"labelled": "x"})

    assert reproduction_tables(make_study("demo", runs)) == []
    table = reproduction_tables(make_study("demo", [runs[0], recipe]))[1]
    assert any("Supervised stage." in note and "Here: ibkd learns from labelled rows." in note for note in table.notes)


def test_sets_of_runs_are_not_mixed(make: Make) -> None:
    large = {"budget": {"currency": "sentences", "amount": 25600}}
    runs = [on_sts(make, "ibkd", 1, 0.9), *(on_sts(make, label, 2, 0.5, **large) for label in ("ibkd", "mse"))]
    table = reproduction_tables(make_study("demo", runs))[1]

    assert list(table.text["Here, shared tasks"]) == ["50.00", "50.00"]
    assert any("this is set [b]" in note for note in table.notes)
    assert "Budget" in " ".join(table.notes) and "Here: 25,600 sentences." in " ".join(table.notes)


@pytest.mark.parametrize(
    ("there", "here", "verdict", "order"),
    [
        (1.0, 2.0, None, "agrees"),
        (1.0, -2.0, None, "disagrees"),
        (-1.0, -2.0, None, "agrees"),
        (1.0, 0.0, None, "undecided"),
        (0.0, 1.0, None, "undecided"),
        (1.0, 2.0, "better", "agrees"),
        (1.0, -2.0, "worse", "disagrees"),
        (1.0, 2.0, "undecided", "undecided"),
        (1.0, 2.0, "worse", "undecided"),
        (1.0, 0.1, "equivalent", "disagrees"),
        (0.4, -0.1, "equivalent", "agrees"),
    ],
)
def test_order_of_a_pair(there: float, here: float, verdict: str | None, order: str) -> None:
    assert judge(there, here, verdict, margin=0.5) == order


def test_verdicts_count_in_both_directions(make: Make) -> None:
    study = study_of(make, mse=0.60, ibkd=0.70, hpd=0.65)
    mse, ibkd, hpd = (key(study, label) for label in ("mse", "ibkd", "hpd"))
    tables = reproduction_tables(study, {(mse, ibkd): "worse", (ibkd, hpd): "undecided"})
    pairs = by_name(tables)["reproduction_ibkd-sts_pairs"]

    assert column(pairs, "Pair", "Verdict here") == {
        "hpd - mse": "undecided",
        "ibkd - mse": "better",
        "ibkd - hpd": "undecided",
    }
    assert column(pairs, "Pair", "Order") == {
        "hpd - mse": "undecided",
        "ibkd - mse": "agrees",
        "ibkd - hpd": "undecided",
    }
    assert outcomes(tables)["IBKD's table of students on STS"] == "partly reproduced"
    assert set(outcomes(reproduction_tables(study, {})).values()) == {"undecided", "not comparable"}


@pytest.mark.parametrize(("margin", "order"), [(0.005, "disagrees"), (0.01, "agrees")])
def test_equivalent_methods_agree_within_the_margin(make: Make, margin: float, order: str) -> None:
    """IBKD is published 0.81 points above HPD."""
    study = make_study("demo", [on_sts(make, label, 1, 0.6) for label in ("ibkd", "hpd")], margin)
    tables = reproduction_tables(study, {(key(study, "hpd"), key(study, "ibkd")): "equivalent"})

    assert list(by_name(tables)["reproduction_ibkd-sts_pairs"].text["Order"]) == [order]


def test_protocol_differences_are_facts_of_the_records(make: Make) -> None:
    runs = [on_sts(make, label, seed, 0.5) for label, seed in [("mse", 1), ("ibkd", 1), ("ibkd", 2)]]
    notes = reproduction_tables(make_study("demo", runs))[1].notes

    for said in (
        "Here: teacher-l6, 6 layers, width 384, 22,713,216 parameters.",
        "Student. There: MiniLM, 23M parameters, width 384. Here: 2 layers, width 192, 7,000,000 parameters.",
        "Here: 12,800 sentences, from embedded.",
        "Here: learning rate 0.0005 for all methods, batch size 128 for all methods, checkpoint: last.",
        "Seeds. There: not stated. Here: 1 / 2.",
        "Here: mteb 2.20.",
        "SICK-R is another test set. There: 4,927 examples. Here: 9,927.",
        "HPD's own release states 81.80, not 82.05, for its MiniLM student.",
    ):
        assert any(said in note for note in notes), said


def test_what_both_state_alike_is_no_difference(make: Make) -> None:
    study = study_of(make, mse=0.5, ibkd=0.6)
    protocol = dataclasses.replace(TABLES[0].protocol, seeds="1", supervised_stage="none")
    found = differences(dataclasses.replace(TABLES[0], protocol=protocol), study, row_names(study, "method"))

    assert [note.split(".")[0] for note in found[:-1]] == [
        "Teacher",
        "Student",
        "Text",
        "Budget",
        "Tuning",
        "Evaluation",
    ]


def test_order_without_the_other_test_set(make: Make) -> None:
    """SICK-R alone reverses the order of the two methods."""
    study = study_of(make, mse=[0.6] * 6 + [0.9], ibkd=[0.61] * 6 + [0.5])
    pairs = by_name(reproduction_tables(study))["reproduction_ibkd-sts_pairs"]

    assert list(pairs.text["Order"]) == ["disagrees"]
    assert any(note.startswith("Without SICK-R") and "1 of 1 pairs have" in note for note in pairs.notes)


def test_the_papers_own_set_is_taken_where_it_was_scored(make: Make) -> None:
    """SICK's test pairs, which the papers score, are the task SICK-R-Test here, not mteb's SICK-R."""

    def scored(label: str, *values: float) -> Record:
        run = on_sts(make, label, 1, values)
        names = {"SICK-R": "SICK-R-Test"}
        tasks = {names.get(name, name): facts for name, facts in run.tasks.items()}
        tasks["SICK-R-Test"]["examples"] = 4927
        scores = {names.get(name, name): found for name, found in run.scores.items()}
        return dataclasses.replace(run, tasks=tasks, scores=scores)

    study = make_study("demo", [scored("mse", *[0.6] * 6, 0.9), scored("ibkd", *[0.61] * 6, 0.5)])
    found = by_name(reproduction_tables(study))
    notes = " ".join(found["reproduction_ibkd-sts"].notes + found["reproduction_ibkd-sts_pairs"].notes)
    assert "STSBenchmark, SICK-R-Test." in notes
    assert "another test set" not in notes and "Not scored here" not in notes
    assert list(found["reproduction_ibkd-sts_pairs"].text["Order"]) == ["disagrees"]


def test_every_format_shows_it(make: Make) -> None:
    runs = [on_sts(make, label, 1, 0.5, limit=64) for label in ("mse", "ibkd")]
    for table in reproduction_tables(make_study("demo", runs)):
        assert table.mark == "smoke run (--limit 64): not a result"
        assert table.text.shape == table.order.shape and list(table.text) == list(table.order)
        assert all(type(cell) is str for cell in pd.Series(table.text.to_numpy().ravel()))
        assert table.caption.split(": ")[1] in to_markdown(table) and "tabular" in to_latex(table)
        assert "data-sort" in to_html(table)
        assert not any("another test set" in note for note in table.notes)
