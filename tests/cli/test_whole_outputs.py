"""Results whose every name is an attack, through every verb that reads them: each medium shows names and runs none.

Names are made from a seed; `DISTILBENCH_NAMES_SEED` makes others.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from distilbench.core.sealed import write_sealed
from distilbench.gate.baseline import bless, scores_of
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, to_dict
from tests.cli.test_output import MARKS, PARTS, SIGNS, printable
from tests.conftest import Cli, Writes
from tests.gate.test_check import examples, record_of
from tests.reporting.conftest import make_facts

SEED = int(os.environ.get("DISTILBENCH_NAMES_SEED", "0"))
ATTACKS = [
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE x; --",
    "=HYPERLINK(A1)",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "</script><script>alert(1)</script>",
    "</style><svg onload=alert(1)>",
    "]]><x/>",
    "javascript:alert(1)",
    "| a | b |",
    "$x^2$ \\frac{1}{2}",
    "\\input{/etc/passwd}",
    "\x1b]0;title\x07\x1b[2J",
    "[link=https://x.y]a[/link][/]",
    "שלום\u202e 你好 नमस्ते",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "word " * 60,
    "長" * 300,
    "%s %n {0} {x}",
]
TASKS = ("STS-A", "STS-B", "Search")
RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def nasty(chosen: random.Random, count: int) -> list[str]:
    """Names that JSON and a table can hold, no two alike."""
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [*(sign for sign in SIGNS if sign not in "\ud800\0"), *MARKS, *PARTS]
        name = "".join(chosen.choice(parts) for _ in range(chosen.randint(1, 10)))
        found[chosen.choice([name, chosen.choice(ATTACKS), chosen.choice(ATTACKS) + name])] = None
    return list(found)


def file_name(name: str) -> str:
    """A name that the system lets a folder have."""
    return "r" + name.replace("/", "_").encode()[:80].decode(errors="ignore")


class Names:
    """What everything is called in one round."""

    def __init__(self, seed: int) -> None:
        chosen = random.Random(f"{SEED} {seed}")
        self.labels = nasty(chosen, 3)
        self.tasks = dict(zip(TASKS, nasty(chosen, 3), strict=True))
        self.study, self.message, *self.others = nasty(chosen, 8)
        self.folder = file_name(self.study)


def write(folder: Path, names: Names, noise: float = 0.6, *, whole: bool = False) -> Path:
    """Records under these names: rows of three seeds, and unless `whole` runs that diverged and failed."""
    for number, label in enumerate(names.labels):
        for seed in (1, 2, 3):
            found = examples(noise + number / 10, (number, seed, 0), 0.002)
            leave(folder, named(record_of(label, seed, found, 0), names), found.replace({"task": names.tasks}))
    for status in () if whole else ("diverged", "failed"):
        record = replace(record_of(names.labels[0], 4, examples(0.6, (0, 4, 0), 0.002), 0), run_id=status)
        ended: dict[str, Any] = {
            "status": status,
            "error": names.message,
            "scores": {},
            "tasks": {},
            "seed": 4 + len(status),
        }
        leave(folder, replace(named(record, names), run_id=status, **ended), None)
    return folder


def named(record: Record, names: Names) -> Record:
    """The record with its names, in every place that has any."""
    one, two, three, *_ = names.others
    kinds = {names.tasks[task]: facts["type"] for task, facts in record.tasks.items()}
    return replace(
        record,
        run_id=f"{record.seed}{file_name(record.label)}",
        study=names.study,
        method=one,
        hyperparameters={two: three, "deep": {three: [one]}},
        teacher=record.teacher | {"name": two, "layers": 4, "parameters": 10},
        text=record.text | {"source": three},
        tasks={name: make_facts(name, kind) for name, kind in kinds.items()},
        scores={names.tasks[task]: metrics for task, metrics in record.scores.items()},
        environment=record.environment | {"cpu": one, "platform": two},
    )


def leave(folder: Path, record: Record, found: pd.DataFrame | None) -> None:
    def fill(run: Path) -> None:
        dump_json(to_dict(record), run / RECORD_FILE)
        if found is not None:
            found.to_parquet(run / EXAMPLES_FILE, index=False)

    write_sealed(folder / record.run_id, fill)


ROUNDS = [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2))]


@pytest.fixture(params=ROUNDS)
def names(request: pytest.FixtureRequest) -> Names:
    return Names(request.param)


@pytest.fixture
def results(tmp_path: Path, names: Names) -> Path:
    return write(tmp_path / names.folder, names)


FILES = tuple(f"data:{kind};base64," for kind in ("text/csv", "text/markdown", "text/x-tex", "application/pdf"))


class Page(HTMLParser):
    """Reads a page as a browser does, and keeps what could run or load anything."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.open, self.found = 0, list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        void = {"meta", "br", "img", "link", "input", "hr", "use", "path", "rect", "circle", "line", "image"}
        if tag not in void:
            self.open.append(tag)
        if tag in ("img", "iframe", "object", "embed", "link", "base", "form"):
            self.found.append(tag)
        # A file that a link holds is saved, and never opened.
        own = ("#", "data:image/png", *(FILES if "download" in dict(attrs) else ()))
        for name, value in attrs:
            foreign = name in ("href", "xlink:href", "src") and not (value or "").startswith(own)
            if name.startswith("on") or foreign:
                self.found.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def check_page(path: Path) -> None:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert (page.scripts, page.found, page.open) == (4, [], [])


def check_markdown(text: str) -> None:
    """Every table keeps its columns, and nothing of a name became a link, an image or HTML."""
    assert printable(text)
    kinds = set[str]()
    widths: list[int] = []
    for token in RENDERER.parse(text):
        kinds.update(child.type for child in token.children or [])
        kinds.add(token.type)
        if token.type == "tr_open":
            widths.append(0)
        elif token.type in ("th_open", "td_open"):
            widths[-1] += 1
        elif token.type == "table_close":
            assert len(set(widths)) == 1, widths
            widths = []
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "code_inline", "fence", "code_block"}, kinds
    raw = [line for line in text.splitlines() if line.startswith("|")]
    parsed = sum(token.type == "tr_open" for token in RENDERER.parse(text))
    # The line below the headings is none that is parsed.
    rules = sum(bool(re.fullmatch(r"[|\-: ]+", line)) for line in raw)
    assert parsed == len(raw) - rules, text


def check_csv(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, strict=True))
    assert len({len(row) for row in rows}) == 1, path
    for row in rows:
        for cell in row:
            assert printable(cell)
            if cell.startswith(tuple("=+-@\t\r")):
                float(cell)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert [list(row) for row in frame.itertuples(index=False)] == rows[1:]


def check_latex(text: str) -> None:
    assert printable(text)
    depth = 0
    for sign in re.sub(r"\\.", "", text.replace("\n", " ")):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0 and not re.search(r"\\(input|write|include|frac)", text)


def said(output: tuple[int, str, str], code: int) -> str:
    """What was printed, with its exit code checked, and no sign in it that a terminal obeys."""
    found, out, err = output
    assert found == code, err
    assert printable(out.replace("\t", " ")) and printable(err), (out, err)
    assert "Traceback" not in err
    return out


def cells_of(text: str) -> Iterator[list[str]]:
    yield from (line.split("\t") for line in text.splitlines())


def check_formats(cli: Cli, code: int, *arguments: Any) -> None:
    """A verb with a table, in every format."""
    said(cli(*arguments), code)
    said(cli(*arguments, "--wide"), code)
    check_markdown(said(cli(*arguments, "--format", "md"), code))
    json.loads(said(cli(*arguments, "--format", "json"), code))
    tsv = said(cli(*arguments, "--format", "tsv"), code)
    for block in re.split(r"\n\n+", tsv.strip("\n")):
        assert len({len(row) for row in cells_of(block)}) == 1


@pytest.mark.figures
def test_a_report_shows_every_name_and_runs_none(cli: Cli, results: Path, names: Names, tmp_path: Path) -> None:
    said(cli("report", results, "--out", tmp_path / "out", "--reference", names.labels[0]), 0)
    out = tmp_path / "out" / names.folder
    check_page(out / "index.html")
    files = sorted((out / "tables").iterdir())
    assert {path.suffix for path in files} == {".md", ".tex", ".json", ".csv"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        match path.suffix:
            case ".md":
                check_markdown(text)
            case ".tex":
                check_latex(text)
            case ".csv":
                check_csv(path)
            case _:
                json.loads(text)
    for path in (out / "figures").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert "script" not in tags and "foreignObject" not in tags
        assert not re.search(r"<[^>]*\son\w+=", path.read_text(encoding="utf-8"))


def test_verbs_with_tables_show_every_name(cli: Cli, results: Path, names: Names) -> None:
    check_formats(cli, 0, "advise", "--results", results)
    check_formats(cli, 0, "power", results)
    runs = sorted(path for path in results.iterdir() if (path / EXAMPLES_FILE).is_file())
    check_formats(cli, 0, "diff", runs[0], runs[-1])
    said(cli("diff", runs[0], runs[-1], "--task", f"no {names.message}"), 2)
    said(cli("report", results, "--reference", f"no {names.message}"), 2)


def test_the_gate_shows_every_name(cli: Cli, results: Path, names: Names, tmp_path: Path) -> None:
    base = tmp_path / f"{names.folder}.json"
    sound = write(tmp_path / "sound" / names.folder, names, whole=True)
    bless(scores_of(sound), base)
    # Of a run that failed, or a row that got worse, a name is in a message too.
    for candidate, code in ((sound, 0), (results, 1)):
        out = {
            name: tmp_path / f"{candidate.parent.name[:9]}.{code}.{name}" for name in ("junit", "summary", "history")
        }
        files = [part for name, path in out.items() for part in (f"--{name}", path)]
        said(cli("check", candidate, "--baseline", base, *files), code)
        check_formats(cli, code, "check", candidate, "--baseline", base, "--github")
        suite = ElementTree.parse(out["junit"]).getroot()
        cases = list(suite)
        assert {case.tag for case in cases} == {"testcase"} and len(cases) == int(suite.attrib["tests"])
        assert all(child.tag in ("failure", "error", "skipped") for case in cases for child in case)
        assert all(map(printable, (value for case in cases for value in case.attrib.values())))
        check_markdown(out["summary"].read_text(encoding="utf-8"))
        said(cli("trend", out["history"], "--out", tmp_path / "trend"), 0)


def test_plans_and_studies_show_every_name(cli: Cli, study: Writes, tmp_path: Path, names: Names) -> None:
    folder = tmp_path / names.folder
    folder.mkdir()
    path = folder / f"{names.folder}.yaml"
    path.write_text(study().read_text(encoding="utf-8"), encoding="utf-8")
    check_formats(cli, 0, "run", path, "--dry-run", "--out", folder / "results")
    check_formats(cli, 0, "studies")
    for key in ("name", "text.source", "methods", "tasks", names.message.replace("=", "") or "x"):
        code, out, err = cli("run", path, "--dry-run", f"{key}={names.others[0]}", "--out", folder / "results")
        said((code, out, err), 2)
        assert len(err) < 3000
    said(cli("run", folder / f"no {names.folder}", "--dry-run"), 2)
    said(cli("report", folder / names.folder), 2)
