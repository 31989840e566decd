"""The campaigns of this folder, cut short: kills and damage cost nothing, and breakages are stopped."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilbench.cli.app import VERBS
from tests.reliability import __main__ as script_of_all
from tests.reliability import corruption, malformed, mirrors, special_files, verbs
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


def test_every_kind_of_cache_file_is_flipped() -> None:
    assert set(corruption.USE) == set(corruption.ARTEFACTS)
    flipped = {pattern.split("/")[1] for pattern in corruption.ARTEFACTS.values() if pattern.startswith("cache/")}
    assert flipped == {kind for kinds in corruption.WRITERS.values() for kind in kinds}


def puts_into_the_cache(call: ast.expr) -> bool:
    name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
    # Other things are put elsewhere, such as an order to Ray.
    is_ours = isinstance(call, ast.Name) or ast.unparse(call) == f"cache.{name}"
    return is_ours and name in ("find_or_make", "kept_arrays", "put", "claim")


def test_every_writer_of_the_cache_is_known_to_the_campaign() -> None:
    """Whose kind of folder is not in the list is not flipped."""
    source, found = ROOT / "bench" / "distilbench", dict[str, int]()
    for path in source.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
        if (count := sum(map(puts_into_the_cache, calls))) and path.name != "cache.py":
            found[str(path.relative_to(source))] = count
    assert found == {name: len(kinds) for name, kinds in corruption.WRITERS.items()}


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
    [(malformed, "--inputs", 20), (mirrors, "--mirrors", 7), (special_files, "--uses", 50)],
    ids=["malformed", "mirrors", "special files"],
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
