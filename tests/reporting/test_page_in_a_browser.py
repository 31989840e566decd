"""The page in a browser, where there is one: charts are drawn, filters hide, and links unfold what they lead to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilbench.reporting import build
from tests.reporting.planted import factorial, simulate

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.figures, pytest.mark.skipif(BROWSER is None, reason="no Chromium")]
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=1200,900")
ASK = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => setTimeout(() => {{
  const tell = () => {{ {body} }};
  const found = tell();
  const out = document.createElement("template");
  out.id = "answer";
  out.setAttribute("data-answer", JSON.stringify({{ found, errors }}));
  document.body.append(out);
}}, 500));
</script>"""
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "planted"
    design = factorial(kind=["good", "poor", "also-poor"])
    made = simulate(design, lambda levels: 0.7 if levels["kind"] == "good" else 0.3, 5, np.random.default_rng(0))
    made.write(folder, design)
    [built] = build(folder, tmp_path_factory.mktemp("out"))
    return built


@pytest.fixture
def ask(page: Path, tmp_path: Path) -> Ask:
    def asked(body: str, anchor: str = "") -> Any:
        """What a script says of the page once it is drawn."""
        assert BROWSER is not None
        copy = tmp_path / "page.html"
        text = page.read_text(encoding="utf-8")
        copy.write_text(text.replace("<body>", f"<body>{ASK.format(body=body)}", 1), encoding="utf-8")
        command = [
            BROWSER,
            *OPTIONS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"{copy.as_uri()}{anchor}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        answer = re.search(r'data-answer="([^"]*)"', done.stdout)
        assert answer is not None, done.stderr
        said = json.loads(
            answer[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        )
        assert said["errors"] == []
        return said["found"]

    return asked


def test_every_chart_is_drawn_with_what_a_reader_may_choose(ask: Ask) -> None:
    found = ask("""const parts = [".drawn.live > svg", "select", ".chip"];
        const counts = (figure) => [figure.dataset.chart, parts.map((part) => all(part, figure).length)];
        return Object.fromEntries(all("figure[data-chart]").map(counts));""")
    assert found == {"scores": [1, 1, 3], "score_vs_cost": [1, 2, 3], "differences": [1, 2, 3]}


def test_a_chip_hides_its_method_everywhere(ask: Ask) -> None:
    place, rows, boxes, texts, count = ask("""const chip = document.querySelector(".chip");
        chip.click();
        const rows = all(`[data-rows~="${chip.dataset.place}"]`).map((row) => getComputedStyle(row).display);
        const box = all("[data-filter=row] input[type=checkbox]").map((item) => item.checked);
        const names = all("#figure-scores .drawn text").map((text) => text.textContent);
        return [chip.textContent, [...new Set(rows)], box, names, document.querySelector(".count").textContent];""")
    assert rows == ["none"] and sorted(boxes) == [False, True, True] and count == "(1 hidden)"
    assert place not in texts and {"good", "poor", "also-poor"} - {place} <= set(texts)


def test_a_task_is_hidden_from_tables(ask: Ask) -> None:
    shown = ask("""document.querySelector("[data-filter=task] input[value=Search]").click();
        return all("[data-task]").map((cell) => [cell.dataset.task, getComputedStyle(cell).display]);""")
    assert {display == "none" for task, display in shown if task == "Search"} == {True}
    assert {display == "none" for task, display in shown if task != "Search"} == {False}


def test_a_chart_shows_what_was_chosen(ask: Ask) -> None:
    before, after = (
        ask("""const label = () => all("#figure-scores .drawn text").map((text) => text.textContent).join(" ");
        const before = label();
        const select = document.querySelector("#figure-scores select");
        select.value = "Search";
        select.dispatchEvent(new Event("change"));
        return [before, label()];""")
    )
    assert "Mean (Task) (x100)" in before and "Search (x100)" in after


def test_a_heading_sorts_its_table_by_keyboard_or_click(ask: Ask) -> None:
    order, values = ask("""const head = document.querySelector("#table-main thead th.number");
        head.querySelector("button").click();
        const cells = all("#table-main tbody tr").map((row) => row.cells[head.cellIndex]);
        return [head.getAttribute("aria-sort"), cells.map((cell) => parseFloat(cell.dataset.sort))];""")
    assert order == "descending" and values == sorted(values, reverse=True) and len(values) == 3


def test_a_link_unfolds_what_it_leads_to(ask: Ask) -> None:
    assert ask("""return document.getElementById("table-tasks").closest("details").open;""", "#table-tasks") is True
    assert ask("""return document.getElementById("table-tasks").closest("details").open;""") is False


def test_a_figure_is_saved_as_it_is_drawn(ask: Ask) -> None:
    saved = ask("""const saved = [];
        HTMLAnchorElement.prototype.click = function () { saved.push([this.download, this.href.slice(0, 5)]); };
        document.querySelector("#figure-scores [data-save=svg]").click();
        return saved;""")
    assert saved == [["scores.svg", "blob:"]]
