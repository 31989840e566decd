"""The information plane and the layers' similarity: what is drawn is the mean over seeds of what the records hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis.frame import StudyFrames, make_study
from distilbench.analysis.inference import Inference
from distilbench.records.design import Design
from distilbench.records.record import Record
from distilbench.reporting.figures.all_figures import FIGURES
from distilbench.reporting.figures.drawn import FigureData
from distilbench.reporting.figures.representation import information_plane, layers, planes
from distilbench.reporting.figures.style import logarithmic, new_figure, styled
from distilbench.reporting.page.assemble import SECTIONS, TITLES

Make = Callable[..., Record]


def placed(share: float, shift: float) -> dict[str, Any]:
    spots = {"hsic_input": 0.5, "hsic_teacher": 0.3, "nce_input": 4.0, "nce_teacher": 3.0}
    return {"share": share, "score": 0.5, **{name: value + shift for name, value in spots.items()}, "nce_limit": 6.2}


@pytest.fixture
def study(make: Make) -> StudyFrames:
    looked = {"schema": 2, "sentences": 9, "values": {}}
    records = [
        make("ceiling", 0, (0.8, 0.9, 0.7), "ceiling", vectors={**looked, "layers": [[1.0, 1.0, 1.0]] * 3}),
        make(
            "mse",
            1,
            (0.6, 0.7, 0.5),
            response=[placed(0.5, 0.0), placed(1.0, 0.1)],
            vectors={**looked, "layers": [[0.2, 0.4, 0.6], [0.1, None, 0.3]]},
        ),
        make(
            "mse",
            2,
            (0.6, 0.7, 0.5),
            response=[placed(0.5, 0.2), {"share": 1.0, "score": None}],
            vectors={**looked, "layers": [[0.4, 0.6, 0.8], [0.3, 0.5, 0.5]]},
        ),
        make("old", 1, (0.5, 0.6, 0.3), response=[{"share": 1.0, "score": 0.4}]),
    ]
    return make_study("demo", records)


@pytest.fixture
def given(study: StudyFrames) -> FigureData:
    return FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design())


def test_places_are_means_over_the_seeds_that_have_one(study: StudyFrames) -> None:
    found = planes(study)
    assert list(found["key"]) == ["method:mse:"] * 2
    assert list(found["hsic_teacher"]) == pytest.approx([0.4, 0.4])
    assert list(found["nce_input"]) == pytest.approx([4.1, 4.1])


def test_the_plane_has_a_panel_per_measure_and_ends_at_the_end(given: FigureData) -> None:
    figure = information_plane(given)
    assert figure is not None
    hsic, nce = figure.axes
    line, end = hsic.get_lines()
    assert np.array(line.get_xdata()) == pytest.approx([0.6, 0.6])
    assert [float(np.array(value)[0]) for value in (end.get_xdata(), end.get_ydata())] == pytest.approx([0.6, 0.4])
    assert any(np.array(line.get_ydata()) == pytest.approx([6.2, 6.2]) for line in nce.get_lines())


def test_a_measure_that_tells_no_students_apart_is_left_out(make: Make) -> None:
    response = [{**placed(1.0, 0.0), "nce_input": 6.15}]
    study = make_study("demo", [make(name, 1, (0.6, 0.7, 0.5), response=response) for name in ("mse", "ckd")])
    figure = information_plane(FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design()))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["normalised HSIC"]


def test_layers_are_means_over_seeds_and_the_teacher_is_not_drawn_beside_itself(given: FigureData) -> None:
    figure = layers(given)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes if axes.get_images()] == ["mse"]
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown is not None
    assert np.ma.getdata(shown) == pytest.approx(np.array([[0.3, 0.5, 0.7], [0.2, 0.5, 0.4]]))


def test_rows_that_do_not_fill_the_last_line_are_drawn(make: Make) -> None:
    looked = {"schema": 2, "sentences": 9, "values": {}, "layers": [[0.2, 0.4], [0.1, 0.3]]}
    study = make_study("demo", [make(label, 1, (0.6, 0.7, 0.5), vectors=looked) for label in "abcd"])
    figure = layers(FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design()))
    assert figure is not None
    assert sorted(axes.get_title() for axes in figure.axes if axes.get_title()) == ["a", "b", "c", "d"]


def test_records_from_before_have_neither(plain: list[Record]) -> None:
    study = make_study("demo", plain)
    given = FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design())
    assert planes(study).empty and information_plane(given) is None and layers(given) is None


def test_every_figure_has_its_place_on_the_page() -> None:
    names = [name for lists in SECTIONS.values() for parts in lists for name in parts]
    shown = {name.removeprefix("figure ") for name in names if name.startswith("figure")}
    assert shown == set(FIGURES) == set(TITLES)


def test_the_places_are_written_for_other_tools(study: StudyFrames, tmp_path: Path) -> None:
    from distilbench.reporting.write import write_planes

    write_planes(study, tmp_path)
    assert len(pd.read_csv(tmp_path / "information_plane.csv")) == 2


@pytest.mark.parametrize(("low", "high", "labels"), [(64, 2000, ["100", "1,000"]), (0.02, 3, ["0.02", "0.1", "2"])])
def test_a_logarithmic_axis_has_plain_numbers(low: float, high: float, labels: list[str]) -> None:
    with styled("axis"):
        figure = new_figure(2)
        axes = figure.subplots()
        logarithmic(axes)
        axes.set_xlim(low, high)
        figure.draw_without_rendering()
        assert set(labels) <= {tick.get_text() for tick in axes.get_xticklabels()}
