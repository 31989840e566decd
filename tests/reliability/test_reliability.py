"""The campaigns of this folder, cut short: kills and damage cost nothing, and breakages are stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilbench.cli.app import VERBS
from tests.reliability import __main__ as script_of_all
from tests.reliability import malformed, mirrors, verbs
from tests.reliability.__main__ import CAMPAIGNS

ROOT = Path(__file__).parents[2]
READING = {"power", "advise", "methods", "tasks", "studies", "diff", "conform", "completion"}
IN_THE_CACHE_OR_AWAY = {"calibrate", "push"}
"""Verbs that leave nothing in a folder of the user's."""


def outcome(script: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.reliability.{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode in codes, done.stdout + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_verb_that_writes_is_killed() -> None:
    killed = {verb.arguments[0] for verb in verbs.VERBS.values()}
    assert killed == set(VERBS) - READING - IN_THE_CACHE_OR_AWAY


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(script_of_all, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["reliability", "--only", "kills on Ray"])
    assert script_of_all.main() == 0
    assert "| kills on Ray | 0 | left out: Ray is not installed | 0 |" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_killed_can_go_on() -> None:
    found = outcome("verbs", "--kills", "3", "--verbs", "check --bless", "export", "prefetch")
    assert (found["kills"], found["stuck"], found["differing_files"]) == (3, [], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "option", "count"),
    [(malformed, "--inputs", 20), (mirrors, "--mirrors", 7)],
    ids=["malformed", "mirrors"],
)
def test_what_is_malformed_is_refused(
    script: ModuleType, option: str, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: to begin another one takes as long as the campaign.
    monkeypatch.setattr(sys, "argv", [script.__name__, option, str(count)])
    assert script.main() == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == []


@pytest.mark.slow
@pytest.mark.thorough
def test_all_campaigns_at_their_shortest() -> None:
    command = [sys.executable, "-m", "tests.reliability", "--share", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 2 + len(CAMPAIGNS)


@pytest.mark.slow
@pytest.mark.thorough
def test_breakages_are_stopped(teacher_folder: Path) -> None:
    found = outcome("breakages", str(teacher_folder), codes=(0, 1))
    assert (found["stopped"], found["breakages"]) == (12, 12)
    # Rounding to half precision, harmless in a trained model, is magnified by random weights.
    assert set(found["false_alarms"]) <= {"weights in half precision"}
