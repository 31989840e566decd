"""Steps of every method on a GPU that is not there: all tensors are on it, and the processor never waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import distilbench_methods

ROOT = Path(__file__).parents[2]
CASES = [
    *(f"{name}/whole" for name in [*distilbench_methods.registry(), "simcse-mlm"]),
    *(f"{name}/in parts" for name in ("mse", "codir", "simcse-mlm")),
]
EVERY = [*distilbench_methods.registry(), *distilbench_methods.VARIANTS]
FURTHER = [case for name in EVERY for how in ("whole", "in parts") if (case := f"{name}/{how}") not in CASES]
PLANTED = {
    "waiting": "DataDependentOutputException",
    "mixing": "FakeTensorDeviceMismatchError",
    "copying": "waits for a copy",
}
Steps = Callable[[list[str]], dict[str, list[str]]]


@pytest.fixture(scope="module")
def steps(teacher_folder: Path, text_file: Path, labelled_file: Path) -> Steps:
    """Case -> what is wrong with a step, from a process of its own."""

    def run(cases: list[str]) -> dict[str, list[str]]:
        given = [*map(str, (teacher_folder, text_file, labelled_file)), *cases]
        command = [sys.executable, "-m", "tests.training.fake_gpu", *given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.fixture(scope="module")
def found(steps: Steps) -> dict[str, list[str]]:
    return steps([*CASES, *(f"{name}/whole" for name in PLANTED)])


@pytest.mark.parametrize("case", CASES)
def test_a_step_stays_on_the_gpu_and_waits_for_nothing(found: dict[str, list[str]], case: str) -> None:
    assert found[case] == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_would_be_wrong_is_noticed(found: dict[str, list[str]], name: str) -> None:
    [said] = found[f"{name}/whole"]
    assert PLANTED[name] in said


@pytest.mark.thorough
def test_no_further_variant_does_otherwise(steps: Steps) -> None:
    assert steps(FURTHER) == {case: [] for case in FURTHER}
