"""How an error ends a verb: the exit code, one sentence, and nothing that looks like success."""

from __future__ import annotations

import errno
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


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs the tests may say how wide its terminal is."""
    monkeypatch.delenv("COLUMNS", raising=False)


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


def test_a_sentence_that_cannot_be_said_changes_no_exit_code(unread: int) -> None:
    """Python itself would end with 1, or with 120."""
    assert ended(["report", "nowhere"], stdout=subprocess.PIPE, stderr=unread).returncode == 2
    assert ended(["report", "nowhere"], stdout=subprocess.PIPE, preexec_fn=partial(os.close, 2)).returncode == 2


def test_a_library_that_ends_the_program_is_no_regression(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "action", lambda _: sys.exit(1))
    assert cli("studies")[0] == 70


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report", "x" * 10_000], "File name too long"),
        (["check", "x" * 10_000, "--baseline", "b.json"], "the baseline b.json is missing"),
        (["check", "x", "--baseline", "x" * 10_000], "File name too long"),
        (["run", "x" * 10_000], "unknown study"),
        (["x" * 10_000], "unknown verb"),
        (["report", "a\0b"], "NUL"),
        (["run", "demo", "name=a\x1b[2J", "--dry-run"], "name"),
    ],
)
def test_strange_arguments_are_one_short_sentence(cli: Cli, arguments: list[str], expected: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err[:2000]
    assert expected in err and len(err) < 2000 and err[:-1].isprintable()


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOSPC, errno.EFBIG])
def test_a_path_that_the_system_refuses_is_one_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(_: object) -> int:
        raise OSError(refusal, os.strerror(refusal), "/some/path")

    monkeypatch.setattr(studies, "action", refuse)
    code, _, err = cli("studies")
    assert (code, err.count("\n")) == (2, 1)
    assert "/some/path" in err and os.strerror(refusal) in err


def test_a_user_without_a_home_is_told_to_name_a_cache(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "DISTILBENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = cli("run", "demo", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert "set DISTILBENCH_CACHE to a folder" in err


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


WITHOUT_TORCH = """
studies
methods
methods mse
tasks
report --help
--version
rum
run no-such-study
run demo methods=[no-such-method]
prefetch no-such-study
report /no/such
power /no/such
advise --results /no/such
diff /no /such
check /no/such --baseline /no/such.json
"""


@pytest.mark.parametrize("command", WITHOUT_TORCH.strip().split("\n"))
def test_what_needs_no_torch_loads_none(command: str) -> None:
    code = (
        "import sys\nfrom distilbench.cli.app import main\n"
        f"main({command.split()!r})\n"
        "sys.exit(' '.join({'torch', 'transformers', 'mteb'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
