"""How an error ends a verb: the exit code, one sentence, and nothing that looks like success."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distilbench.cli import studies

Cli = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-m", "distilbench"]


def test_an_error_of_our_own_is_said_to_be_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("planted")

    monkeypatch.setattr(studies, "action", fail)
    code, out, err = cli("studies")
    assert (code, out) == (70, "")
    assert "RuntimeError: planted" in err
    assert err.splitlines()[-1].startswith("distilbench: this is an error of distilbench itself; please report it")


def test_ctrl_c_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "action", interrupt)
    code, _, err = cli("studies")
    assert (code, "interrupted" in err) == (130, True)


def ended(arguments: list[str], *, unbuffered: bool = False, **streams: Any) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose output is buffered as it is for users, or not."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    return subprocess.run([*COMMAND, *arguments], text=True, timeout=120, env=environment, check=False, **streams)


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


PRINTING = [["studies", "--json"], ["methods"], ["check", "--help"], ["--version"], []]


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", PRINTING)
def test_output_that_nobody_reads_is_no_success(arguments: list[str], unread: int, unbuffered: bool) -> None:
    done = ended(arguments, unbuffered=unbuffered, stdout=unread, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert "the output could not be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", PRINTING)
def test_output_to_a_full_disk_is_no_success(arguments: list[str], unbuffered: bool) -> None:
    with Path("/dev/full").open("w") as full:
        done = ended(arguments, unbuffered=unbuffered, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_output_that_is_closed_is_no_success() -> None:
    done = ended(["studies"], stderr=subprocess.PIPE, preexec_fn=partial(os.close, 1))
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "the output could not be written, because stdout is closed" in done.stderr


def test_a_sentence_that_cannot_be_said_is_no_regression(unread: int) -> None:
    """Python itself would end with 1."""
    assert ended(["report", "nowhere"], stdout=subprocess.PIPE, stderr=unread).returncode == 3
    assert ended(["report", "nowhere"], stdout=subprocess.PIPE, preexec_fn=partial(os.close, 2)).returncode == 2


def test_an_error_of_our_own_with_stderr_closed_is_not_printed_as_output(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("planted")

    monkeypatch.setattr(studies, "action", fail)
    monkeypatch.setattr(sys, "stderr", None)
    code, out, _ = cli("studies")
    assert (code, out) == (70, "")


def test_letters_that_the_terminal_does_not_have_are_written_in_others() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "studies"], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_alone_it_shows_what_there_is(cli: Cli) -> None:
    code, out, _ = cli()
    assert code == 0
    assert "check" in out and "exit codes" in out


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    from distilbench.cli.app import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distilbench {version('distilbench')}\n"


@pytest.mark.parametrize("arguments", [["studies"], ["methods"], ["tasks"], ["report", "--help"], ["check", "--help"]])
def test_what_needs_no_torch_loads_none(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom distilbench.cli.app import main\n"
        f"main({arguments!r})\n"
        "sys.exit(' '.join({'torch', 'transformers', 'mteb'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
