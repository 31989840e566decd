"""The scripts of this folder, cut short: kills and changed bytes cost nothing, and breakages are stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def outcome(script: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.reliability.{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode in codes, done.stdout + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.thorough
def test_kills_cost_nothing() -> None:
    found = outcome("kills", "--kills", "2", "--methods", "codir", "two-stages")
    assert (found["kills"], found["lost_completed_runs"], found["differing_files"]) == (2, 0, [])
    assert found["runs"] == 5


@pytest.mark.slow
@pytest.mark.thorough
def test_changed_bytes_are_noticed_and_put_right() -> None:
    found = outcome("corruption", "--trials", "6")
    assert (found["noticed"], found["missed"], found["differing_files"]) == (6, [], [])
    assert set(found["by_kind"].values()) == {1}


@pytest.mark.slow
@pytest.mark.thorough
def test_breakages_are_stopped(teacher_folder: Path) -> None:
    found = outcome("breakages", str(teacher_folder), codes=(0, 1))
    assert (found["stopped"], found["breakages"]) == (12, 12)
    # Rounding to half precision, harmless in a trained model, is magnified by random weights.
    assert set(found["false_alarms"]) <= {"weights in half precision"}
