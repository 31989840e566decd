"""What a study found is what its verdicts say, and a comparison that means nothing is called so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilbench.analysis.frame import OVERALL, StudyFrames, make_study, row_names
from distilbench.analysis.inference import Inference
from distilbench.cli.app import main
from distilbench.records.record import Record, read_study
from distilbench.reporting.findings import alarms, compared, findings
from distilbench.reporting.write import with_errors
from tests.reliability import workload
from tests.reporting.conftest import make_record, write_study
from tests.reporting.planted import factorial, simulate

TEACHER, FLOOR = "The teacher", "No method"


def alarms_of(records: list[Record], folder: Path) -> list[str]:
    return alarms(*with_errors(make_study("demo", records), write_study(folder, records)))


@pytest.fixture(scope="module")
def told_apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFrames, Inference]:
    """Three rows, one of which is much better."""
    folder = tmp_path_factory.mktemp("found") / "planted"
    design = factorial(kind=["good", "poor", "also-poor"])
    made = simulate(design, lambda levels: 0.7 if levels["kind"] == "good" else 0.3, 5, np.random.default_rng(0))
    made.write(folder, design)
    return with_errors(make_study("planted", read_study(folder)), folder)


def test_a_finding_says_what_the_verdicts_say(told_apart: tuple[StudyFrames, Inference]) -> None:
    study, inference = told_apart
    (sentence,) = findings(study, inference)
    names = row_names(study, "method")
    first = max(names, key=lambda key: study.average.mean[OVERALL][key])
    verdicts = [inference.verdict(first, other) for other in names if other != first]
    assert sentence.startswith(f"On {OVERALL}: ") and names[first] in sentence
    found = re.search(r"(\d+) of (\d+) others", sentence)
    assert found is not None
    assert [int(number) for number in found.groups()] == [verdicts.count("better"), len(verdicts)] == [2, 2]
    for key, name in names.items():
        if inference.verdict(first, key) in ("undecided", "equivalent"):
            assert name in sentence


def test_it_says_which_methods_are_above_the_floor(tmp_path: Path) -> None:
    design = factorial(kind=["good", "also-good", "poor", "untrained"])
    quality = {"good": 0.7, "also-good": 0.68, "poor": 0.3, "untrained": 0.3}
    made = simulate(design, lambda levels: quality[levels["kind"]], 5, np.random.default_rng(0))
    records = [
        replace(record, role="floor", run_id=record.run_id) if record.label == "untrained" else record
        for record in made.records
    ]
    replace(made, records=records).write(tmp_path / "planted", design)
    said = findings(*with_errors(make_study("planted", read_study(tmp_path / "planted")), tmp_path / "planted"))
    assert said[0].startswith("2 of 3 methods are shown to be better than the student before training on ")
    assert said[0].endswith("STS and Retrieval: good, also-good.") or said[0].endswith("also-good, good.")


def test_smoke_runs_find_nothing(told_apart: tuple[StudyFrames, Inference]) -> None:
    study, _ = told_apart
    short = [replace(record, limit=64) for record in study.records.values()]
    assert findings(make_study("planted", short), told_apart[1]) == []


def test_a_sound_study_raises_no_alarm(
    plain: list[Record], told_apart: tuple[StudyFrames, Inference], tmp_path: Path
) -> None:
    assert alarms_of(plain, tmp_path) == alarms(*told_apart) == []


def test_a_teacher_below_the_floor_is_named(plain: list[Record], tmp_path: Path) -> None:
    worse = [make_record("ceiling", 0, (0.1, 0.1, 0.1), "ceiling"), *plain[1:]]
    (alarm,) = alarms_of(worse, tmp_path)
    assert alarm.startswith(TEACHER) and "(10.00)" in alarm


def test_methods_that_end_no_better_than_they_began_are_named(plain: list[Record], tmp_path: Path) -> None:
    idle = [make_record("mse", seed, (0.2, 0.2, 0.1)) for seed in (1, 2)]
    (alarm,) = alarms_of([plain[0], *idle, *plain[5:]], tmp_path)
    assert alarm.startswith(FLOOR)


def test_one_method_above_the_floor_is_enough(plain: list[Record], tmp_path: Path) -> None:
    idle = [make_record("simcse", seed, (0.1, 0.1, 0.1)) for seed in (1, 2)]
    assert alarms_of([*plain[:3], *idle, *plain[5:]], tmp_path) == []


def test_a_training_of_one_step_is_named(plain: list[Record], tmp_path: Path) -> None:
    plain[1] = replace(plain[1], ledger={**plain[1].ledger, "steps": 1})
    (alarm,) = alarms_of(plain, tmp_path)
    assert "one step" in alarm and "mse (seed 1)" in alarm


def test_what_was_compared(plain: list[Record]) -> None:
    said = compared(make_study("demo", plain))
    assert said.startswith("2 methods, untuned, 2 seeds: teacher ") and said.endswith(".") and "3 tasks" in said
    assert "without a trained student" in compared(make_study("demo", plain[:1]))


@pytest.mark.slow
def test_terminal_and_page_raise_the_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = workload.make(tmp_path / "study", ["mse"])
    assert main(["run", str(study), "--out", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().err
    assert TEACHER in said and FLOOR in said
    assert main(["report", str(tmp_path / "results" / "torture"), "--out", str(tmp_path / "reports")]) == 0
    head = (tmp_path / "reports" / "torture" / "index.html").read_text(encoding="utf-8").partition("<main ")[0]
    assert f'<p class="mark">{TEACHER}' in head and f'<p class="mark">{FLOOR}' in head
    assert 'content="1 method, untuned, 1 seed: teacher' in head and '<p class="finding">' in head
    assert "<dt>Methods</dt><dd>1 method, 1 seed of each, not tuned</dd>" in head
