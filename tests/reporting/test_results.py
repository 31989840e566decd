"""Results from Python: tidy frames, and the report's own verdicts and figures."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import distilbench as db
from distilbench.analysis.frame import OVERALL
from distilbench.reporting.figures.all_figures import FIGURES
from distilbench.reporting.figures.style import styled
from tests.reporting.conftest import make_record, write_study
from tests.reporting.planted import factorial, simulate

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "minilm-50k"
REPORT = ROOT / "reports" / "minilm-50k"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A factorial ablation of which one factor matters."""
    folder = tmp_path_factory.mktemp("results") / "planted"
    ablation = factorial(a=["no", "yes"], b=["no", "yes"])
    effect = simulate(ablation, lambda levels: 0.3 + 0.2 * (levels["a"] == "yes"), 3, np.random.default_rng(0))
    effect.write(folder, ablation)
    return folder


# Frames


def test_failed_runs_have_no_scores_and_are_counted(tmp_path: Path) -> None:
    records = [make_record("mse", 1, (0.6, 0.7, 0.5)), make_record("<b>", 1, None, status="failed", error="no disk")]
    results = db.read_results(write_study(tmp_path / "demo", records))
    assert set(results.scores["row"]) == {"mse"}
    assert [None if pd.isna(error) else error for error in results.runs["error"]] == ["no disk", None]
    assert repr(results) == (
        "Results of demo: 2 methods x 1 seed, 3 tasks (STS-A, STS-B, Search); runs: 1 failed, 1 completed"
    )
    assert results._repr_html_().startswith("Results of <b>demo</b>: 2 methods x 1 seed, 3 tasks")
    nothing = db.read_results(write_study(tmp_path / "none", [make_record("mse", 1, None, status="failed")], False))
    assert len(nothing.scores) == len(nothing.costs) == 0 and nothing.scores["value"].dtype == "float64"
    assert nothing.plots == []


def test_rows_of_different_settings_have_names_of_their_own(tmp_path: Path) -> None:
    budgets = ({"currency": "steps", "amount": 3}, {"currency": "steps", "amount": 4})
    records = [make_record("mse", n, (0.6, 0.7, 0.5), run_id=str(n), budget=budgets[n]) for n in (0, 1)]
    results = db.read_results(write_study(tmp_path / "demo", records))
    assert set(results.scores["row"]) == set(results.costs["row"]) == {"mse [a]", "mse [b]"}


def test_one_of_several_studies_is_to_be_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_study(tmp_path / name, [make_record("mse", 1, (0.6, 0.7, 0.5))])
    with pytest.raises(db.UserError, match=r"holds 2 studies; read one of them: .*one, .*two$"):
        db.read_results(tmp_path)


# Verdicts


def verdicts(folder: Path) -> list[tuple[str, ...]]:
    """The table of a report as it is printed: names, difference with its interval, verdict."""
    table = json.loads((folder / "tables" / "verdicts.json").read_text(encoding="utf-8"))
    return [(row["Method"], row["Against"], row["Difference"], row["Verdict"]) for row in table["shown"]]


def printed(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The same from what `compare` gives."""
    return [
        (line["row"], line["other"], f"{line['points']:+.2f} ± {line['high'] - line['points']:.2f}", line["verdict"])
        for line in frame.to_dict("records")
    ]


@pytest.mark.parametrize("margin", [0.5, 30.0])
def test_verdicts_are_those_of_the_report(
    planted: Path, tmp_path: Path, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.reporting.figures.all_figures.FIGURES", {})
    results = db.read_results(planted)
    [page] = db.report(results, tmp_path, margin=margin)
    mine = results.compare(margin=margin)
    assert printed(mine) == verdicts(page.parent)
    assert len(set(mine["verdict"])) > 1 or margin > 1
    assert ((mine["points"] - mine["low"]) - (mine["high"] - mine["points"])).abs().max() < 1e-9


def test_each_row_is_compared_with_the_reference(planted: Path) -> None:
    results = db.read_results(planted)
    pairs, reference = results.compare(column="STS"), "yes+no"
    against = results.compare(reference, column="STS")
    assert list(against["other"]) == [reference] * 3 and set(against["row"]) == {"no+no", "no+yes", "yes+yes"}
    known = {(line["row"], line["other"]): line for line in pairs.to_dict("records")}
    turned = {"better": "worse", "worse": "better"}
    for line in against.to_dict("records"):
        if (line["row"], reference) in known:
            assert line == known[line["row"], reference]
            continue
        other = known[reference, line["row"]]
        assert (line["points"], line["low"], line["high"]) == (-other["points"], -other["high"], -other["low"])
        assert line["verdict"] == turned.get(other["verdict"], other["verdict"])
        assert (line["p_differs"], line["p_within"]) == (other["p_differs"], other["p_within"])


@pytest.mark.slow
def test_the_checked_in_records_give_the_checked_in_verdicts_and_figures() -> None:
    results = db.read_results(RECORDS)
    assert printed(results.compare()) == verdicts(REPORT)
    assert len(results.compare("mse")) == 9
    assert set(results.plots) == {path.stem for path in (REPORT / "figures").glob("*.svg")}


def test_verdicts_are_on_the_mean_over_tasks_unless_asked() -> None:
    # Its name stands there twice, since the one place would import pandas with the package.
    assert inspect.signature(db.Results.compare).parameters["column"].default == OVERALL


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    results = db.read_results(write_study(tmp_path / "demo", [make_record("mse", 1, (0.6, 0.7, 0.5))]))
    with pytest.raises(db.UserError, match="there is nothing to compare"):
        results.compare()


# Figures


def drawn(path: Path) -> list[tuple[str, str]]:
    """All elements and texts of a drawing; where they are depends on how often it was laid out, by fractions."""
    return re.findall(r"<(\w+)|<!-- (.*?) -->", path.read_text(encoding="utf-8"))


@pytest.mark.figures
def test_figures_are_those_of_the_report(planted: Path, tmp_path: Path) -> None:
    results = db.read_results(planted)
    [page] = db.report(results, tmp_path, reference="no+yes")
    assert {"scores", "differences", "ranks", "ablation", "interactions"} <= set(results.plots)
    assert set(results.plots) == {path.stem for path in (page.parent / "figures").glob("*.svg")}
    for name in results.plots:
        figure = results.plot(name, reference="no+yes")
        assert isinstance(figure, Figure)
        with styled(name):
            figure.savefig(tmp_path / f"{name}.svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        assert drawn(tmp_path / f"{name}.svg") == drawn(page.parent / "figures" / f"{name}.svg")


def test_a_notebook_shows_a_figure(planted: Path) -> None:
    figure: Any = db.read_results(planted).plot("scores")
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_data_says_what_is_missing(tmp_path: Path, name: str) -> None:
    results = db.read_results(write_study(tmp_path / "demo", [make_record("mse", 1, None, status="failed")], False))
    with pytest.raises(db.UserError, match=f"demo has no data for the figure {name}: it needs .{{10}}"):
        results.plot(name)
