"""How an error ends a verb: the exit code, one sentence, and nothing that looks like success."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


@pytest.mark.parametrize("arguments", [["studies", "--json"], ["methods"], ["methods", "--markdown"], []])
def test_output_that_nobody_reads_is_no_success(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert done.returncode == 3
    assert "the output could not be written" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["studies", "--json"], ["methods"]])
def test_output_to_a_full_disk_is_no_success(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 3
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_alone_it_shows_what_there_is(cli: Cli) -> None:
    code, out, _ = cli()
    assert code == 0
    assert "check" in out and "exit codes" in out


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    from distilbench.cli.app import main

    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"distilbench {version('distilbench')}\n")


@pytest.mark.parametrize("arguments", [["studies"], ["methods"], ["tasks"], ["report", "--help"], ["check", "--help"]])
def test_what_needs_no_torch_loads_none(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom distilbench.cli.app import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "sys.exit(' '.join({'torch', 'transformers', 'mteb'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
