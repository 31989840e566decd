"""Any name and any text, in each format and file of the gate's command, and of a report's tables.

What hypothesis makes up, it makes smaller until no less will do: a failure shows the shortest text that is an attack.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from unittest import mock
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilbench.cli.app import main
from distilbench.core.escape import visible
from distilbench.gate.check import EXIT, CheckLine, CheckResult
from distilbench.reporting.formats.latex import to_latex
from distilbench.reporting.formats.render import Table, to_json, to_markdown, write_csv
from distilbench.reporting.page.assemble import to_html
from tests.cli.test_output import MARKS, PARTS, SIGNS, printable
from tests.cli.test_whole_outputs import ATTACKS, RENDERER, check_csv, check_latex, check_markdown

FORMATS = ("text", "tsv", "md", "json")
VERDICTS = ["pass", "improved", "regressed", "inconclusive", "not comparable", "not evaluated"]
KNOWN = [*ATTACKS, *PARTS, *MARKS, *(sign for sign in SIGNS if sign != "\ud800"), "\ufe0f", "\U000e0100", "\U000e0080"]
ANY = st.characters(exclude_categories=["Cs", "Cn", "Co", "Zs"])
"""Of others than these, what is private or no character yet is seen as a box, and a space as one."""
TEXTS = st.lists(st.sampled_from(KNOWN) | st.text(ANY, max_size=3), max_size=6).map("".join)
"""Whatever JSON and UTF-8 can hold: halves of pairs of UTF-16 they cannot."""
POINTS = st.none() | st.floats(-1, 1)
LINES = st.builds(
    CheckLine,
    label=TEXTS,
    column=TEXTS,
    decides=st.booleans(),
    verdict=st.sampled_from(VERDICTS),
    baseline=POINTS,
    candidate=POINTS,
    difference=POINTS,
    half_width=POINTS.map(lambda value: None if value is None else abs(value)),
    detectable=POINTS,
    reason=TEXTS,
    paired=st.booleans(),
    examples=st.none() | st.dictionaries(TEXTS, st.integers(1, 9), max_size=2),
)
OUTCOMES = st.lists(LINES, min_size=1, max_size=3).flatmap(
    lambda lines: st.builds(
        CheckResult,
        verdict=st.sampled_from([line.verdict for line in lines]),
        lines=st.just(lines),
        margin=st.just(0.005),
        alpha=st.just(0.05),
        notes=st.lists(TEXTS, max_size=2),
    )
)
QUICK = settings(
    deadline=None, database=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck)
)
LONG = settings(QUICK, max_examples=3000, derandomize=False)


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code of a command, what it printed, and what it said to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(map(str, arguments)))
    return code, out.getvalue(), err.getvalue()


def no_number(text: str) -> NoReturn:
    raise AssertionError(f"{text} is no JSON")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=no_number)


def rendered(markdown: str) -> list[list[str]]:
    """The cells of each row of the first table, as a reader sees them."""
    rows: list[list[str]] = []
    tokens = RENDERER.parse(markdown)
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            rows[-1].append("".join(part.content for part in token.children or []))
    return rows


def on_one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def check_gate(outcome: CheckResult, folder: Path) -> None:
    """Every format and file of `distilbench check` shows the names of an outcome, and nothing obeys them."""
    labels = [line.label for line in outcome.lines]
    files = {name: folder / name for name in ("junit", "summary", "history")}
    wanted = [part for name, path in files.items() for part in (f"--{name}", path)]
    for form in FORMATS:
        files["history"].unlink(missing_ok=True)
        more = ["--wide"] if form == "text" else []
        code, out, err = run("check", "model", "--baseline", "b.json", "--format", form, "--github", *wanted, *more)
        assert code == EXIT.get(outcome.verdict, 3)
        assert printable(out.replace("\t", " ")) and printable(err)
        *commands, last = err.splitlines()
        assert last == f"distilbench check: {outcome.verdict}"
        assert all(line.startswith(("::error title=", "::warning title=")) for line in commands)
        if form == "tsv":
            rows = [line.split("\t") for line in out.removesuffix("\n").split("\n")]
            assert len({len(row) for row in rows}) == 1 and [row[0] for row in rows[1:]] == list(map(visible, labels))
        elif form == "md":
            check_markdown(out)
            assert [row[0] for row in rendered(out)[1:]] == [on_one_line(visible(label)) for label in labels]
        elif form == "json":
            assert [line["label"] for line in strict(out)["lines"]] == labels
    cases = list(ElementTree.parse(files["junit"]).getroot())
    assert [case.get("classname") for case in cases] == list(map(visible, labels))
    check_markdown(files["summary"].read_text(encoding="utf-8"))
    (kept,) = files["history"].read_text(encoding="utf-8").splitlines()
    assert [line["label"] for line in strict(kept)["lines"]] == labels


class Shown(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text = set[str](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def check_table(name: str, cell: str, folder: Path) -> None:
    """A report's table in every format shows its names, and nothing obeys them."""
    frame = pd.DataFrame({name: [cell], f"{name} 2": [1.5]})
    table = Table("t", name, frame, frame, [cell], name)
    page = Shown()
    page.feed(to_html(table))
    page.close()
    assert not page.tags & {"script", "img", "svg", "a", "iframe", "style", "link", "meta", "object", "form", "input"}
    assert visible(cell) in page.text or "\n" in cell
    check_markdown(to_markdown(table))
    check_latex(to_latex(table))
    assert strict(to_json(table))["caption"] == name
    write_csv(frame, folder / "t.csv")
    check_csv(folder / "t.csv")
    with (folder / "t.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream))[0].removeprefix("'") == visible(name).removeprefix("'")


def gate(outcome: CheckResult) -> None:
    with TemporaryDirectory() as place, mock.patch("distilbench.gate.run.check_candidate", lambda *_: outcome):
        check_gate(outcome, Path(place))


def tables(name: str, cell: str) -> None:
    with TemporaryDirectory() as place:
        check_table(name, cell, Path(place))


test_the_gate_shows_any_name = QUICK(given(OUTCOMES)(gate))
test_a_table_shows_any_name = QUICK(given(TEXTS, TEXTS)(tables))
test_the_gate_shows_many_names = pytest.mark.thorough(LONG(given(OUTCOMES)(gate)))
test_a_table_shows_many_names = pytest.mark.thorough(LONG(given(TEXTS, TEXTS)(tables)))
