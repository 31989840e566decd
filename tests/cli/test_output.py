"""Output that cannot be written: it stops no work, changes no verdict, and is no success otherwise."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from distilbench.cli.app import main
from distilbench.cli.output import print_line, say
from distilbench.cli.terminal import print_rows, print_tables
from distilbench.core.escape import escape_markdown
from distilbench.gate.baseline import bless, scores_of
from distilbench.gate.check import CheckLine, CheckResult
from distilbench.gate.output import as_table, to_junit, to_text
from distilbench.reporting.formats.latex import to_latex
from distilbench.reporting.formats.render import Table, to_json, to_markdown
from distilbench.reporting.page.assemble import to_html
from tests.gate.test_check import write_study

CANDIDATES = {"same": {"mse": 0.6}, "worse": {"mse": 0.9}}
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, and two candidates."""
    folder = tmp_path_factory.mktemp("gate")
    for name, labels in CANDIDATES.items():
        write_study(folder / name, labels)
    bless(scores_of(folder / "same"), folder / "base.json")
    return folder


def checked(place: Path, name: str, *more: object, **streams: Any) -> subprocess.CompletedProcess[str]:
    """The gate in a process of its own."""
    arguments = ["check", place / name, "--baseline", place / "base.json", *more]
    command = [sys.executable, "-m", "distilbench", *map(str, arguments)]
    return subprocess.run(command, text=True, timeout=120, check=False, **({"stdout": subprocess.PIPE} | streams))


def files(folder: Path) -> dict[str, Path]:
    names = {"--junit": "j.xml", "--summary": "s.md", "--history": "h.jsonl"}
    return {option: folder / name for option, name in names.items()}


def options(wanted: dict[str, Path]) -> list[object]:
    return [part for pair in wanted.items() for part in pair]


@contextmanager
def unread() -> Iterator[dict[str, Any]]:
    reading, writing = os.pipe()
    os.close(reading)
    yield {"stdout": writing}
    os.close(writing)


@contextmanager
def closed() -> Iterator[dict[str, Any]]:
    yield {"preexec_fn": partial(os.close, 1), "stdout": None}


@contextmanager
def full() -> Iterator[dict[str, Any]]:
    with FULL.open("w") as stream:
        yield {"stdout": stream}


@pytest.mark.parametrize(("name", "code"), [("same", 0), ("worse", 1)])
@pytest.mark.parametrize("streams", [unread, closed])
def test_a_verdict_stands_though_nobody_reads_it(
    place: Path, tmp_path: Path, name: str, code: int, streams: Callable[[], Any]
) -> None:
    wanted = files(tmp_path)
    with streams() as given:
        done = checked(place, name, *options(wanted), stderr=subprocess.PIPE, **given)
    assert done.returncode == code, done.stderr
    assert "could not be written" in done.stderr
    assert all(path.stat().st_size for path in wanted.values())
    assert json.loads(wanted["--history"].read_text())["verdict"] == {0: "pass", 1: "regressed"}[code]


@needs_full
@pytest.mark.parametrize(("name", "code"), [("same", 3), ("worse", 1)])
def test_a_full_disk_makes_no_pass_and_hides_no_regression(place: Path, tmp_path: Path, name: str, code: int) -> None:
    wanted = files(tmp_path)
    with full() as given:
        done = checked(place, name, *options(wanted), stderr=subprocess.PIPE, **given)
    assert done.returncode == code, done.stderr
    assert "No space left on device" in done.stderr
    assert all(path.stat().st_size for path in wanted.values())


@pytest.mark.parametrize(("name", "code"), [("same", 3), ("worse", 1)])
@pytest.mark.parametrize(
    "where",
    ["no such folder/x.xml", "x" * 10_000, pytest.param(str(FULL), marks=needs_full)],
    ids=["no", "long", "full"],
)
def test_a_file_that_cannot_be_written_leaves_the_others_and_is_no_pass(
    place: Path, tmp_path: Path, name: str, code: int, where: str
) -> None:
    wanted = files(tmp_path)
    done = checked(place, name, *options(wanted | {"--junit": Path(where)}), stderr=subprocess.PIPE)
    assert done.returncode == code, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2 and said[0].startswith("distilbench: error: --junit: ") and len(done.stderr) < 1000
    assert done.stdout.startswith({1: "REGRESSED", 3: "PASS"}[code])
    assert all(wanted[option].stat().st_size for option in ("--summary", "--history"))


def test_a_limit_on_sizes_is_no_pass(place: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = checked(place, "same", *options(files(tmp_path)), stderr=subprocess.PIPE, preexec_fn=limit)
    assert (done.returncode, done.stderr.count("File too large"), "Traceback" in done.stderr) == (3, 3, False)


@pytest.mark.parametrize("streams", [unread, closed])
def test_other_work_is_finished_though_nobody_reads_of_it(
    place: Path, tmp_path: Path, streams: Callable[[], Any]
) -> None:
    assert main(["check", str(place / "same"), "--baseline", str(place / "base.json"), *_history(tmp_path)]) == 0
    command = [sys.executable, "-m", "distilbench", "trend", str(tmp_path / "h.jsonl"), "--out", str(tmp_path / "out")]
    with streams() as given:
        done = subprocess.run(command, text=True, timeout=120, check=False, stderr=subprocess.PIPE, **given)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert (tmp_path / "out" / "trend.svg").stat().st_size


def _history(folder: Path) -> list[str]:
    return ["--history", str(folder / "h.jsonl")]


def test_letters_that_ascii_does_not_have_change_no_verdict(place: Path, tmp_path: Path) -> None:
    wanted = files(tmp_path)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = checked(place, "worse", *options(wanted), stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (1, "distilbench check: regressed\n")
    assert "±" in wanted["--summary"].read_text(encoding="utf-8")


UNSEEN = "\u00ad\u061c\u180e\u200b\u200e\u2060\u2064\ufeff\ufff9\U000e0041\u3164\u2800\u115f\ufdd0"
SIGNS = f"ab1 é\U0001f600{UNSEEN}\u200d\t\n\r\0\x07\x1b\x7f\x9b\u200f\u202e\u2028\ufffe\ud800"
MARKS = "[]()!|`*_~#+-=@$\\<>&\"';/:."
PARTS = [
    *("1. ", "# ", "- ", "---", "__a__", "~~a~~", "*a*", ":x:", "a@b.c", "``", "&lt;", "=1+1", "\x1b[31m", "[bold]"),
    *("[/x]", "![i](http://x.y/z)", "[a](https://b.c)", "www.x.y", "]]>", "<script>", "a" * 90),
]


def names() -> Iterator[str]:
    """Names of all kinds, the same ones each time."""
    chosen = random.Random(0)
    for _ in range(200):
        yield "".join(chosen.choice([*SIGNS, *MARKS, *PARTS]) for _ in range(chosen.randint(1, 12)))


def printable(text: str) -> bool:
    # A joiner of two letters that are not everybody's is seen in what it makes of them.
    return all(sign.isprintable() or sign in "\u200c\u200d" for line in text.split("\n") for sign in line)


def test_no_name_is_taken_for_an_order(capsys: pytest.CaptureFixture[str]) -> None:
    for name in names():
        line = CheckLine(name, name, True, "regressed", reason=name)
        outcome = CheckResult("regressed", [line, CheckLine("b", "Mean (Task)", True, "pass")], 0.005, 0.05, [name])
        (first, _) = ElementTree.fromstring(to_junit(outcome).encode())
        assert (first.tag, [child.tag for child in first]) == ("testcase", ["failure"])
        assert printable(to_text(outcome))
        made = to_markdown(as_table(outcome))
        assert printable(made)
        assert_no_links(made)
        print_rows([{"name": name}], name, Namespace(format="text", wide=False, quiet=False))
        print_line(name)
        say(name)
        if "\ud800" in name:
            continue
        frame = pd.DataFrame({name: [name]})
        table = Table("t", name, frame, frame, [name], name)
        for text in (to_html(table), to_latex(table), to_markdown(table), to_json(table)):
            assert printable(text)
            text.encode("utf-8")
        assert json.loads(to_json(table))["caption"] == name
        for form in ("text", "tsv", "md", "json"):
            print_tables([table], Namespace(format=form, wide=False, quiet=False))
    assert all(map(printable, capsys.readouterr()))


def assert_no_links(markdown: str) -> None:
    bare = markdown.replace("\\\\", "")
    for sign in "[]":
        assert bare.count(sign) == bare.count(f"\\{sign}")
    assert bare.count("://") == bare.count("\\://")
    assert "<" not in bare


def test_links_and_images_of_others_stay_text() -> None:
    assert escape_markdown("![i](http://x.y) www.z.y [a]") == r"!\[i\](http\://x.y) www\.z.y \[a\]"


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"folder": "r[bold]x"}], "in r[/x]", Namespace(format="text", wide=False, quiet=False))
    out = capsys.readouterr().out
    assert "r[bold]x" in out and "in r[/x]" in out


def test_colons_make_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{":x:": ":smile:"}], ":x:", Namespace(format="text", wide=False, quiet=False))
    out = capsys.readouterr().out
    assert out.count(":x:") == 2 and ":smile:" in out


@pytest.mark.parametrize("backend", ["nonsense", "module://matplotlib_inline.backend_inline"])
def test_a_backend_that_is_not_there_keeps_no_figure_from_being_drawn(
    backend: str, place: Path, tmp_path: Path
) -> None:
    """A notebook hands the name of its own on to every command that is started from it."""
    assert checked(place, "same", "--history", tmp_path / "h.jsonl").returncode == 0
    command = [sys.executable, "-m", "distilbench", "trend", str(tmp_path / "h.jsonl"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(command, text=True, timeout=300, check=False, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("*.svg"))


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_a_baseline_does_not_take_the_place_of_its_own_tables(
    ending: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"base{ending}"
    assert main(["check", str(place / "same"), "--baseline", str(path), "--bless"]) == 2
    assert f"{path} is named like the tables beside a baseline" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
