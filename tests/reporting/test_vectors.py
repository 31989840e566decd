"""The table of what vectors are like."""

from __future__ import annotations

from collections.abc import Callable

from distilbench.analysis.frame import make_study
from distilbench.records.record import Record
from distilbench.reporting.tables.vectors import vector_table

Make = Callable[..., Record]


def looked(cka: float, **more: float) -> dict[str, object]:
    return {"schema": 1, "sentences": 380, "values": {"cka": cka, "sts": 0.5, **more}}


def test_means_over_seeds_and_dashes(make: Make) -> None:
    records = [
        make("ceiling", 0, (0.8, 0.9, 0.7), "ceiling", vectors=looked(1.0, cosine=1.0), speed={"bytes": 9e7}),
        make("mse", 1, (0.6, 0.7, 0.5), vectors=looked(0.5), speed={"bytes": 2.5e7, "query_ms": 3.0}),
        make("mse", 2, (0.6, 0.7, 0.5), vectors=looked(0.7), speed={"bytes": 2.5e7, "query_ms": 4.0}),
        make("old", 1, (0.5, 0.6, 0.3)),
    ]
    table = vector_table(make_study("demo", records))
    assert table is not None
    shown = table.text.set_index("Method")
    assert list(shown) == ["Cosine to teacher", "CKA", "STS", "MB on disk", "Query (ms)"]
    assert dict(shown.loc["mse"]) == dict(zip(shown, ["—", "0.600", "50.0", "25.0", "3.5"], strict=True))
    assert "old" not in shown.index
    assert "380 fixed sentences" in table.notes[0]


def test_records_from_before_have_no_table(plain: list[Record]) -> None:
    assert vector_table(make_study("demo", plain)) is None


def test_the_teachers_index_has_a_column_of_each_retrieval_task(make: Make) -> None:
    wide, narrow = {**looked(0.5), "asymmetric": {"Own": 0.25}}, looked(0.5)
    records = [make("wide", seed, (0.6, 0.7, 0.5), vectors=wide) for seed in (1, 2)]
    table = vector_table(make_study("demo", [*records, make("narrow", 1, (0.6, 0.7, 0.5), vectors=narrow)]))
    assert table is not None
    shown = table.text.set_index("Method")["Own on the teacher's index"]
    assert dict(shown) == {"wide": "25.0", "narrow": "—"}
    assert "teacher's index" in table.notes[-1]
