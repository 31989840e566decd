"""Where a pipe is welcome: a study that the shell hands over, and what is written for the page of a CI job."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distilbench.gate.baseline import bless, scores_of
from distilbench.study.study_file import MOST_BYTES
from tests.gate.test_check import write_study

Cli = Callable[..., tuple[int, str, str]]


def piped(content: bytes) -> str:
    """The path of a pipe that holds this, and that is open, as a shell's `<(...)` gives it."""
    reading, writing = os.pipe()

    def fill() -> None:
        try:
            with os.fdopen(writing, "wb") as stream:
                stream.write(content)
        except BrokenPipeError:
            # Whoever reads need not read all of it.
            return

    threading.Thread(target=fill, daemon=True).start()
    return f"/dev/fd/{reading}"


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_cache")
def test_a_study_comes_through_a_pipe(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    code, out, err = cli("run", piped(study().read_bytes()), "--dry-run", "--out", tmp_path / "results", "-q")
    assert code == 0 and "mse" in out, err


def test_a_study_without_an_end_is_refused(cli: Cli) -> None:
    code, _, err = cli("run", piped(b"#" * (MOST_BYTES + 1)), "--dry-run")
    assert code == 2 and f"more than {MOST_BYTES} bytes" in err


def test_a_pipe_that_nobody_has_opened_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.yaml")
    code, _, err = cli("run", tmp_path / "study.yaml", "--dry-run")
    assert code == 2 and f"{tmp_path / 'study.yaml'} is a pipe; give a study's file, or pipe one into /dev/stdin" in err


def test_a_report_for_ci_goes_into_a_pipe_that_is_read(cli: Cli, tmp_path: Path) -> None:
    write_study(tmp_path / "study", {"mse": 0.6})
    bless(scores_of(tmp_path / "study"), tmp_path / "base.json")
    os.mkfifo(tmp_path / "pipe")
    check = ("check", tmp_path / "study", "--baseline", tmp_path / "base.json", "--junit", tmp_path / "pipe")
    code, _, err = cli(*check)
    assert code == 3 and "--junit" in err and "cannot be written" in err
    with os.fdopen(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        assert cli(*check)[0] == 0
        assert stream.read().startswith(b"<testsuite ")
