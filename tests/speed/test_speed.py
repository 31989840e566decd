"""The side-by-side comparison on models and texts that take seconds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from speed import rival
from speed.__main__ import main
from speed.clock import Ratio, Seconds, Work, race, timed
from speed.footprint import footprint
from speed.run import _gap

TINY = ["--layers", "1", "--sentences", "80", "--batch-size", "8", "--rounds", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def rows(teacher_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything but the large text, at tiny shapes."""
    pytest.importorskip("accelerate")
    file, here = tmp_path_factory.mktemp("speed") / "speed.json", tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # The rival's libraries warn of each other.
        warnings.simplefilter("ignore")
        patch.chdir(here)
        patch.delenv("DISTILBENCH_MIRROR", raising=False)
        patch.setattr("speed.growth.LARGE_TEXT", 2000)
        patch.setattr("speed.growth.SMALL_TEXT", 1000)
        patch.setattr("speed.footprint.STEPS", 2)
        for module in ("growth", "run"):
            patch.setattr(f"speed.{module}.TIMES", 2)
        patch.setattr("speed.growth._footprint", footprint)
        arguments = [
            "--teacher",
            str(teacher_folder),
            "--text",
            str(text_file),
            *TINY,
            "--precision",
            "fp32",
            "--tasks",
            "DistilbenchSTS",
        ]
        assert main([*arguments, "--json", str(file)]) == 0
    assert not list(here.iterdir()), "left in the user's folder"
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return found


def test_every_comparison_makes_a_row(rows: list[dict[str, Any]]) -> None:
    works = [row["work"] for row in rows]
    for beginning in (
        "train, mse",
        "train, simcse",
        "train, ckd",
        "teacher over",
        "evaluate DistilbenchSTS",
        "share",
        "train 3",
        "time for 2 times the sentences",
        "time for 2 times the methods",
        "time for 2 times the seeds",
        "memory, read and tokenise",
        "memory, train on",
    ):
        assert any(work.startswith(beginning) for work in works), beginning
    assert all(row["details"]["wall"]["median"] > 0 for row in rows if "wall" in row["details"])


def test_scores_and_vectors_are_the_rivals(rows: list[dict[str, Any]]) -> None:
    differences = [row["details"]["largest_difference"] for row in rows if "largest_difference" in row["details"]]
    assert len(differences) == 2
    assert max(differences) < 1e-6


def test_a_step_is_all_accounted_for(rows: list[dict[str, Any]]) -> None:
    (shares,) = [row["details"]["shares"] for row in rows if "shares" in row["details"]]
    assert set(shares) == {"forward", "backward", "optimiser", "rest"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert min(shares.values()) > 0


def test_the_teacher_reads_the_text_once(rows: list[dict[str, Any]]) -> None:
    (passes,) = [row["details"]["passes"] for row in rows if "passes" in row["details"]]
    assert passes == 1


def test_without_the_rival_there_is_nothing_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rival, "NEEDED", ("sentence_transformers", "no_such_package"))
    assert main([]) == 2
    error = capsys.readouterr().err
    assert "no-such-package is not installed; run: pip install 'distilbench[speed]'" in error


def test_a_race_has_as_many_rounds_as_asked_for_and_all_begin_once() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[int], Work]:
        return lambda number: lambda: order.append(f"{name}{number}")

    found = race({"a": contestant("a"), "b": contestant("b")}, 3)
    assert order == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert [len(seconds) for seconds in found.seconds.values()] == [3, 3]


def test_a_gap_has_the_error_of_its_mean() -> None:
    assert _gap([84.0], [83.5]) == "STS-B dev +0.50 points (1 seed)"
    # Gaps of 1, 0 and 2: mean 1, standard deviation 1, and 4.3027 standard errors of 1 / sqrt(3).
    assert _gap([1.0, 2.0, 4.0], [0.0, 2.0, 2.0]) == "STS-B dev +1.00 ± 2.48 points (3 seeds)"


def test_ratios_are_taken_round_by_round() -> None:
    found = race({"fast": lambda _: lambda: None, "slow": lambda _: lambda: None}, 1)
    found.seconds["fast"][:] = [Seconds(1, 1), Seconds(2, 1), Seconds(1, 1)]
    found.seconds["slow"][:] = [Seconds(2, 3), Seconds(8, 3), Seconds(3, 3)]
    assert found.ratio("fast", "slow") == Ratio(median=3, low=2, high=4)
    assert found.ratio("fast", "slow", "cpu").median == 3
    assert timed(lambda: 7)[1] == 7


@pytest.fixture
def rows_of(
    teacher_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, Any]]]:
    """The rows of some parts, in bf16."""
    pytest.importorskip("accelerate")
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)
    arguments = ["--teacher", str(teacher_folder), "--text", str(text_file), *TINY, "--precision", "bf16"]
    file = tmp_path / "speed.json"

    def run(*parts: str) -> list[dict[str, Any]]:
        assert main([*arguments, "--parts", *parts, "--tasks", "DistilbenchSTS", "--json", str(file)]) == 0
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
        return found

    return run


@pytest.mark.filterwarnings("ignore")
def test_what_pays_on_other_machines_can_be_asked_for(rows_of: Callable[..., list[dict[str, Any]]]) -> None:
    full, half, matrix = rows_of("evaluate", "matrix")
    assert full["work"] == "evaluate DistilbenchSTS, fp32"
    assert full["details"]["largest_difference"] < 1e-6
    assert half["work"] == "evaluate DistilbenchSTS, bf16"
    assert 1e-6 < half["details"]["largest_difference"] < 1e-2
    assert matrix["work"] == "study of 3 methods x 2 seeds on DistilbenchSTS"
    assert matrix["details"]["largest_difference"] < 1e-6
    assert matrix["details"]["cpu"]["median"] > 0


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_is_timed(
    rows_of: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced, and run by torch as before: a compiler takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    [compiled] = rows_of("compile")
    assert compiled["work"] == "train, mse, compiled (default), batch 8, bf16"
    assert compiled["against"] == "not compiled"
    assert compiled["details"]["first_seconds"] > 0


@pytest.mark.thorough
def test_a_teacher_of_any_shape_will_do(
    teacher_folder: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--teacher", str(teacher_folder), "--text", str(text_file), *TINY, "--precision", "fp32"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main([*arguments, "--shape", "2x64", "--parts", "teacher", "--json", str(tmp_path / "speed.json")])
    assert code == 0
    facts = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert facts["options"]["shape"] == [2, 64]
    assert facts["rows"][0]["details"]["largest_difference"] < 1e-5
    assert main([*arguments, "--shape", "2x65", "--parts", "teacher"]) == 2
    assert "no multiple of 64" in capsys.readouterr().err
