"""Tables fit the terminal, break no word, and are whole wherever a program reads them."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from rich.cells import cell_len

from distilbench.cli.app import main
from distilbench.cli.terminal import BETWEEN, EDGE, FORMATS, fitting, print_rows
from tests.reliability import mutated, workload

TEXT = Namespace(format="text", wide=False, quiet=False)
WIDTHS = (40, 80, 120)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mutated.make(tmp_path_factory.mktemp("terminal")).study


def at_a_terminal(arguments: list[str], width: int) -> list[str]:
    """What a command writes to a terminal of so many columns, line by line."""
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": str(width), "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "distilbench", *arguments]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(writer)
        parts = []
        # A terminal that nobody writes to any more is an error to read.
        while part := _read(reader):
            parts.append(part)
    os.close(reader)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n").split("\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["studies"], ["advise", "--results", "@"]])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(arguments: list[str], study: Path) -> None:
    arguments = [str(study) if item == "@" else item for item in arguments]
    command = [sys.executable, "-m", "distilbench", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    whole = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    for width in WIDTHS:
        lines = at_a_terminal(arguments, width)
        assert max(map(cell_len, lines)) <= width
        assert {word for line in lines for word in line.split() if "─" not in word} <= {*whole}


def test_no_width_of_words_breaks_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    for _ in range(200):
        width = rng.randint(20, 160)
        monkeypatch.setenv("COLUMNS", str(width))
        count = rng.randint(1, 9)
        words = [
            "a",
            "mse",
            "internal-kd",
            "日本語",
            "12.34 ± 0.56",
            "x" * rng.randint(1, 18),
            "two words",
            "0 of 1\nnone",
        ]
        rows = [{f"name {place}": rng.choice(words) for place in range(count)} for _ in range(3)]
        print_rows(rows, "title", TEXT)
        out, err = capsys.readouterr()
        assert max(map(cell_len, out.splitlines())) <= width
        words_of = {word for row in rows for pair in row.items() for text in pair for word in text.split()}
        assert {word for word in out.split() if "─" not in word} <= {*words_of, "title"}
        shown = [name for name in rows[0] if all(word in out.split() for word in name.split()) and name in _heads(out)]
        hidden = [name for name in rows[0] if name not in shown]
        assert (", ".join(hidden) in err) and bool(hidden) == ("--wide" in err)


def _heads(out: str) -> str:
    """The headings, each on one line."""
    lines = out.splitlines()[1:]
    rule = next(place for place, line in enumerate(lines) if "─" in line)
    cells = [line for line in lines[:rule] if line.strip()]
    if len(cells) == 1:
        return " ".join(cells[0].split())
    return " ".join(f"name {word}" for line in cells for word in line.split() if word.isdecimal())


@pytest.mark.parametrize(
    ("least", "most", "width", "expected"),
    [
        ([5, 5, 5], [5, 5, 5], 25, [5, 5, 5]),
        ([5, 5, 5], [5, 5, 5], 24, [5, 5]),
        ([5, 5], [30, 6], 40, [27, 6]),
        ([90], [90], 40, [36]),
        ([5, 90], [5, 90], 40, [5]),
    ],
)
def test_columns_that_fit(least: list[int], most: list[int], width: int, expected: list[int]) -> None:
    found = fitting(least, most, width)
    assert found == expected
    assert sum(found) + BETWEEN * len(found) + EDGE <= width


def test_a_pipe_has_no_width_and_a_wide_terminal_all_columns(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*more: str) -> str:
        assert main(["power", str(study), *more]) == 0
        return capsys.readouterr().out

    monkeypatch.delenv("COLUMNS", raising=False)
    whole = shown()
    monkeypatch.setenv("COLUMNS", "40")
    assert shown("--wide") == whole != shown()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_all_of_it(form: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", str(study), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "Detectable" in out and "mse-tuned" in out
    if form == "tsv":
        lines = [line.split("\t") for line in out.splitlines()]
        assert len(lines) == 2 and len({len(line) for line in lines}) == 1
    elif form == "md":
        assert out.startswith("### ") and "\n| Method" in out
    elif form == "json":
        assert json.loads(out)["values"]


def test_a_plan_is_rows_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["run", str(workload.make(tmp_path, ["mse"])), "--dry-run", "--out", str(tmp_path / "results"), "--format"]
    assert main([*plan, "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["study"] for row in rows} == {"torture"} and "mse" in {row["method"] for row in rows}
    assert main([*plan, "tsv"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [dict(zip(lines[0], line, strict=True))["run"] for line in lines[1:]] == [row["run"] for row in rows]


def test_json_is_short_for_its_format(capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for option in (["--json"], ["--format", "json"]):
        assert main(["studies", *option]) == 0
        outs.append(json.loads(capsys.readouterr().out))
    assert outs[0] == outs[1]


def test_help_and_verbs_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "trend"]) == 0
    helped = capsys.readouterr().out
    assert main(["trend", "--help"]) == 0
    assert capsys.readouterr().out == helped
    assert main(["help"]) == main([]) == 0
    capsys.readouterr()
    assert main(["rapport"]) == 2
    assert "unknown verb 'rapport'; did you mean 'report'?" in capsys.readouterr().err
    assert main(["help", "rapport"]) == 2
