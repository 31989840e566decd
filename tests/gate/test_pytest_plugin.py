"""The plug-in, in a pytest of its own."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from distilbench.data.embedded.pinned import pinned_texts
from distilbench.gate.baseline import Scores, bless

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
    found.assert_outcomes(passed=1, failed=3)
    found.stdout.fnmatch_lines(
        [
            "*REGRESSED: model on Drift: the vectors are the baseline's, in another order*",
            "*distilbench: the baseline *missing.json is missing*",
            "*say what to check against: @pytest.mark.distilbench(baseline=FILE)*",
        ]
    )
