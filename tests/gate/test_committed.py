"""What git knows of a baseline: scores that changed without an entry, entries that are gone, and silence without it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from distilbench.cli.app import main
from distilbench.gate.baseline import bless, read_baseline, scores_of
from distilbench.gate.run import CheckOptions, check_candidate
from tests.gate.test_check import write_study

SAID = "without an entry in its history"


def git(folder: Path, *arguments: str) -> None:
    named = {f"GIT_{who}_{what}": "demo@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    given = {"env": os.environ | named | {"GIT_CONFIG_GLOBAL": os.devnull}, "cwd": folder}
    subprocess.run(["git", *arguments], check=True, capture_output=True, **given)  # type: ignore[call-overload]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", {"mse": 0.6}, seeds=2)


@pytest.fixture
def baseline(tmp_path: Path, study: Path) -> Path:
    """In a repository, with one commit."""
    path = tmp_path / "repository" / "baselines" / "demo.json"
    bless(scores_of(study), path)
    git(tmp_path / "repository", "init", "-q")
    commit(path)
    return path


def commit(path: Path) -> None:
    git(path.parent, "add", "--all")
    git(path.parent, "commit", "-q", "-m", "Bless")


def notes(study: Path, baseline: Path) -> list[str]:
    return [note for note in check_candidate(study, baseline, CheckOptions()).notes if SAID in note]


def lowered(baseline: Path) -> None:
    """Sealed again, as by someone who knows how."""
    scores = read_baseline(baseline)
    bless(replace(scores, scores=scores.scores.assign(Search=scores.scores["Search"] - 0.1)), baseline)


@pytest.mark.parametrize("committed", [False, True])
def test_scores_that_were_lowered_by_hand_are_named(study: Path, baseline: Path, committed: bool) -> None:
    assert notes(study, baseline) == []
    lowered(baseline)
    if committed:
        commit(baseline)
    [note] = notes(study, baseline)
    assert "mse on Search" in note and "git log -p" in note


def test_a_blessing_that_says_why_is_not(study: Path, baseline: Path, tmp_path: Path) -> None:
    worse = write_study(tmp_path / "worse", {"mse": 0.9}, seeds=2, stream=1)
    bless_it = ["check", str(worse), "--baseline", str(baseline), "--bless", "--accept-regression", "half the size"]
    assert main(bless_it) == 0
    commit(baseline)
    assert notes(worse, baseline) == []
    bless(replace(read_baseline(baseline), history=[]), baseline)
    [note] = notes(worse, baseline)
    assert "entries" in note


def test_a_row_that_was_removed_is_named(study: Path, baseline: Path, tmp_path: Path) -> None:
    both = write_study(tmp_path / "both", {"mse": 0.6, "ckd": 0.7}, seeds=2)
    bless(scores_of(both), baseline)
    commit(baseline)
    bless(scores_of(study), baseline)
    [note] = notes(study, baseline)
    assert "ckd on" in note


def test_without_git_nothing_is_said(
    study: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered(baseline)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert notes(study, baseline) == []
    monkeypatch.undo()
    outside = tmp_path / "outside.json"
    bless(scores_of(study), outside)
    assert notes(study, outside) == []
    # And what is no baseline yet in an older commit is passed over.
    baseline.write_text("{")
    commit(baseline)
    bless(scores_of(study), baseline)
    assert notes(study, baseline) == []
