"""The plug-in, in a pytest of its own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from distilbench.data.embedded.pinned import pinned_texts
from distilbench.gate import run as gate_run
from distilbench.gate.baseline import Scores, bless
from distilbench.gate.check import CheckResult
from distilbench.gate.pytest_plugin import Gate

pytest_plugins = ["pytester"]
# What a pytest within loads first is dropped after it, and loaded anew: this cannot register with arrow twice.
import_module("pandas.core.arrays.arrow.extension_types")

ENCODER = """
import zlib
import numpy as np

def encode(texts):
    rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
    return np.stack(rows).astype(np.float32)
"""
TESTS = """
import pytest
from encoder import encode

@pytest.mark.distilbench(baseline="baseline.json")
def test_same(distilbench_gate):
    assert distilbench_gate.check_encoder(encode).verdict == "pass"

@pytest.mark.distilbench(baseline="baseline.json")
def test_broken(distilbench_gate):
    distilbench_gate.check_encoder(lambda texts: encode(texts)[::-1])

@pytest.mark.distilbench(baseline="missing.json", margin=1)
def test_missing(distilbench_gate):
    distilbench_gate.check_encoder(encode)

def test_unmarked(distilbench_gate):
    distilbench_gate.check("results")

@pytest.mark.distilbench("baseline.json")
def test_unnamed(distilbench_gate):
    distilbench_gate.check("results")
"""


def encode(batch: list[str]) -> npt.NDArray[np.float32]:
    space: dict[str, object] = {}
    exec(ENCODER, space)
    found: npt.NDArray[np.float32] = space["encode"](batch)  # type: ignore[operator]
    return found


def test_failures_show_the_lines(pytester: pytest.Pytester) -> None:
    runs = pd.DataFrame([{"label": "model", "seed": 0, "batches": None, "weights": "w"}], index=["r"])
    example = {"run": "r", "task": "T", "split": "test", "example": "0", "gold": 1.0, "value": 1.0, "slices": ""}
    tasks = {"T": {"data_sha256": "d", "main_metric": "m", "type": "STS", "precision": "fp32"}}
    scores = pd.DataFrame({"T": [0.5]}, index=["r"])
    vectors = {"r": encode(pinned_texts())}
    blessed = Scores(runs, scores, pd.DataFrame([example]), tasks, "2.0", None, {}, pinned_texts(), vectors)
    bless(blessed, pytester.path / "baseline.json")
    pytester.makepyfile(encoder=ENCODER, test_gate=TESTS)
    # Where the package is installed, its entry point has loaded the plug-in under its own name already.
    options = (
        "-p",
        "no:distilbench",
        "-p",
        "distilbench.gate.pytest_plugin",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
    )
    found = pytester.runpytest_inprocess(*options)
    found.assert_outcomes(passed=1, failed=3, errors=1)
    found.stdout.fnmatch_lines(
        [
            "*name what the marker is given: @pytest.mark.distilbench(baseline=FILE)*",
            "*REGRESSED: model on Drift: the vectors are the baseline's, in another order*",
            "*distilbench: the baseline *missing.json is missing*",
            "*say what to check against: @pytest.mark.distilbench(baseline=FILE)*",
        ]
    )
    found.stdout.no_fnmatch_line("*During handling of the above exception*")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"margn": 1}, "unknown setting of the gate 'margn'; did you mean 'margin'?"),
        ({"margin": "1"}, "margin is '1'; give a number of points, 0 or more"),
        ({"margin": True}, "margin is True; give a number of points, 0 or more"),
        ({"margin": float("nan")}, "margin is nan; give a number of points, 0 or more"),
        ({"alpha": 5}, "alpha is 5; give a number between 0 and 1"),
        ({"tasks": "STSBenchmark"}, "tasks is 'STSBenchmark'; give a list of names"),
        ({"tasks": ["STS12", 3]}, "give a list of names"),
        ({"changed": "yes"}, "changed is 'yes'; give True or False"),
        ({"baseline": 3}, "baseline is 3; give a path"),
        ({"device": 0}, "device is 0; give a device's name, as text"),
        ({"accept_regression": "why not"}, "unknown setting of the gate 'accept_regression'"),
    ],
)
@pytest.mark.parametrize("where", ["the marker", "the call"])
def test_wrong_settings_are_a_sentence(tmp_path: Path, settings: dict[str, Any], expected: str, where: str) -> None:
    gate = Gate(tmp_path, {"baseline": "b.json"} | (settings if where == "the marker" else {}))
    given = settings if where == "the call" else {}
    with pytest.raises(pytest.fail.Exception) as failure:
        gate.check("results", **given)
    said = str(failure.value)
    assert expected in said and said.startswith("distilbench: ") and "\n" not in said


def test_right_settings_reach_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def check(*arguments: Any) -> CheckResult:
        given.extend(arguments)
        return CheckResult("pass", [], 0.005, 0.05, [])

    monkeypatch.setattr(gate_run, "check_candidate", check)
    settings = {"baseline": Path("b.json"), "margin": np.float32(2), "tasks": ("STS12",), "row": None, "drift": True}
    Gate(tmp_path, settings).check("results", slices="s.csv", mirror=tmp_path, device="cpu")
    candidate, baseline, options = given
    assert (candidate, baseline) == (tmp_path / "results", tmp_path / "b.json")
    assert (options.margin, options.tasks, options.row, options.drift) == (0.02, ("STS12",), None, True)
    assert (options.slices, options.mirror, options.device) == (tmp_path / "s.csv", str(tmp_path), "cpu")
