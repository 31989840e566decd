"""The page says first what was compared and found, is sound without a pointer, and holds what it lets one save."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from distilbench.analysis.frame import OVERALL, StudyFrames, make_study, row_names
from distilbench.analysis.inference import Inference
from distilbench.records.record import Record, read_study
from distilbench.reporting import build
from distilbench.reporting.figures.style import MARKERS
from distilbench.reporting.findings import findings
from distilbench.reporting.page.charts import DRAWN, SYMBOLS
from distilbench.reporting.page.summary import facts, found, lost_runs
from distilbench.reporting.write import with_errors
from tests.reporting.planted import factorial, simulate

pytestmark = pytest.mark.figures
Make = Callable[..., Record]
Write = Callable[..., Path]
PAGE = resources.files("distilbench.reporting.page")
VOID = {"meta", "br", "input", "use", "path", "rect", "image"}
LEAST_CONTRAST = 4.5
"""Of text, by the Web Content Accessibility Guidelines at level AA."""


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, **wanted: str) -> list[Element]:
        return [item for item in self._below() if item.tag == tag and wanted.items() <= item.attributes.items()]

    def inside(self, tag: str) -> bool:
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))

    def _below(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._below()


class Reader(HTMLParser):
    """A page as a tree."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(made)
        if tag not in VOID:
            self.at = made

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Element(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, (self.at.tag, tag)
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


@dataclass(frozen=True)
class Built:
    folder: Path
    page: Element
    study: StudyFrames
    inference: Inference


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A study of three methods of five seeds, of which one is much better, and its page."""
    folder = tmp_path_factory.mktemp("results") / "planted"
    design = factorial(kind=["good", "poor", "also-poor"])
    made = simulate(design, lambda levels: 0.7 if levels["kind"] == "good" else 0.3, 5, np.random.default_rng(0))
    made.write(folder, design)
    [page] = build(folder, tmp_path_factory.mktemp("out"))
    return Built(page.parent, read(page), *with_errors(make_study("planted", read_study(folder)), folder))


def read(page: Path) -> Element:
    return Reader(page.read_text(encoding="utf-8")).root


def test_the_first_screen_says_what_was_compared_and_found(built: Built) -> None:
    (header,) = built.page.all("header")
    assert [item.text for item in header.all("dt")] == list(facts(built.study))
    assert [item.text for item in header.all("dd")] == list(facts(built.study).values())
    assert [item.text for item in header.all("p") if "finding" in item.attributes.get("class", "")] == findings(
        built.study, built.inference
    )
    stated = facts(built.study)
    assert stated["Methods"] == "3 methods, 5 seeds of each, not tuned"
    assert stated["Teacher"] == "teacher-l6 (6 layers, 384 wide)"
    assert stated["Budget"] == "12,800 sentences for each run"
    assert stated["Tasks"] == "1 of STS, 1 of Retrieval"


def test_seeds_are_counted_by_method(make: Make) -> None:
    study = make_study("demo", [make("mse", 1, (0.6,)), make("mse", 2, (0.6,)), make("rkd", 1, (0.6,))])
    assert facts(study)["Methods"] == "2 methods, 1 to 2 seeds of each, not tuned"


def test_one_figure_comes_first_and_then_the_main_table(built: Built) -> None:
    (main,) = built.page.all("main")
    first = main.all("section")[0]
    parts = [item for item in first.children if isinstance(item, Element) and item.tag in ("figure", "div")]
    assert [part.attributes["id"] for part in parts] == ["figure-scores", "table-main"]


def test_why_nothing_was_found_is_said(make: Make) -> None:
    def said(*records: Record) -> list[str]:
        study = make_study("demo", records)
        return found(study, Inference(study, study.scores[[]], {}))

    assert said(make("mse", 1, (0.6,), limit=64))[0].startswith("A smoke run shows that everything works")
    assert said(make("ceiling", 0, (0.6,), "ceiling"))[0].startswith("No student was trained")
    assert said(make("mse", 1, None, status="failed"))[0].startswith("No run was completed")
    assert said(make("mse", 1, (0.6,)), make("rkd", 1, (0.6,)))[0].startswith("No two rows were scored on the same")


def test_lost_runs_are_named_at_the_top_and_their_errors_are_not_folded(
    make: Make, write: Write, tmp_path: Path
) -> None:
    records = [make("mse", 1, (0.6, 0.7, 0.5)), make("rkd", 1, None, status="diverged", error="loss is inf")]
    [path] = build(write(records), tmp_path / "out")
    page = read(path)
    (header,) = page.all("header")
    assert lost_runs(make_study("demo", records[:1])) is None
    assert "1 of 2 runs did not complete: rkd (1 run). Means are of the others alone." in header.text
    (error,) = page.all("span", **{"class": "error"})
    assert error.text == "loss is inf" and not error.inside("details")


def test_every_table_and_figure_can_be_read_without_seeing_it(built: Built) -> None:
    for table in built.page.all("table"):
        (caption,) = table.all("caption")
        assert caption.text.strip()
        assert table.parent is not None and table.parent.attributes["tabindex"] == "0"
        assert {item.attributes["scope"] for item in table.all("th")} == {"col", "row"}
        assert all(len(row.all("th")) == 1 for row in table.all("tbody")[0].all("tr"))
    for figure in built.page.all("figure"):
        (svg,) = figure.all("svg")
        assert svg.attributes["role"] == "img" and svg.attributes["aria-label"]
    assert [len(built.page.all(tag)) for tag in ("header", "nav", "main", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert all(section.attributes["aria-labelledby"] for section in built.page.all("section"))
    assert all(item.inside("label") for tag in ("input", "select") for item in built.page.all(tag))


def test_links_lead_to_every_part(built: Built) -> None:
    (nav,), (main,) = built.page.all("nav"), built.page.all("main")
    links = [link.attributes["href"].removeprefix("#") for link in nav.all("a")]
    assert links == [section.attributes["id"] for section in main.all("section")]


def test_details_are_folded(built: Built) -> None:
    (main,) = built.page.all("main")
    open_tables = {table.parent.parent.attributes["id"] for table in main.all("table") if not table.inside("details")}  # type: ignore[union-attr]
    assert open_tables == {"table-main", "table-verdict_matrix", "table-ablation"}
    assert all("open" not in item.attributes for item in built.page.all("details"))
    assert all(item.inside("details") for item in main.all("ul"))


def test_the_matrix_says_verdicts_in_words(built: Built) -> None:
    (matrix,) = built.page.all("div", id="table-verdict_matrix")
    names = row_names(built.study, "method")
    keys = {name: key for key, name in names.items()}
    heads = [head.text.strip() for head in matrix.all("thead")[0].all("th")][1:]
    for row in matrix.all("tbody")[0].all("tr"):
        one = row.all("th")[0].text.strip()
        for other, cell in zip(heads, row.all("td"), strict=True):
            verdict = built.inference.verdict(keys[one], keys[other])
            assert cell.text.strip().endswith(verdict or "")
            if verdict:
                assert cell.attributes["class"].split() == [verdict]
                assert cell.attributes["title"].startswith(f"{one} against {other}: {verdict}, ")


def test_the_main_table_says_what_each_is_against_the_first(built: Built) -> None:
    (table,) = built.page.all("div", id="table-main")
    heads = [head.text.strip() for head in table.all("thead")[0].all("th")]
    names = row_names(built.study, "method")
    first, *others = names
    place = heads.index(f"Against {names[first]}")
    said = [row.all("td")[place - 1].text.strip() for row in table.all("tbody")[0].all("tr")]
    verdicts = [str(built.inference.verdict(key, first)) for key in others]
    assert said[0] == "highest mean of a method"
    assert all(text.endswith(verdict) for text, verdict in zip(said[1:], verdicts, strict=True))
    assert not {"Sentences", "Student passes", "Status"} & set(heads)


def test_shades_are_the_shares_of_the_gap(plain: list[Record], write: Write, tmp_path: Path) -> None:
    [path] = build(write(plain), tmp_path / "out")
    (heat,) = read(path).all("div", id="table-gap_by_task")
    cells = {
        (row.all("th")[0].text, heads): cell
        for row in heat.all("tbody")[0].all("tr")
        for heads, cell in zip(["STS-A", "STS-B", "Search"], row.all("td"), strict=True)
    }
    share = make_study("demo", plain).gap.percent("method:mse:", "STS-A")[0]
    assert cells["mse", "STS-A"].text == f"{share:.0f}"
    assert cells["mse", "STS-A"].attributes["style"] == f"--share: {int(share)}%"
    assert cells["mse", "STS-A"].attributes["data-task"] == "STS-A"


def test_rows_and_columns_say_whose_they_are(built: Built) -> None:
    places = {str(name): str(place) for place, name in enumerate(built.study.rows["row"])}
    boxes = {
        label.text.strip(): label.all("input")[0]
        for label in built.page.all("label")
        if label.all("input", type="checkbox")
    }
    assert {name: boxes[name].attributes["value"] for name in places} == places
    for line in built.page.all("div", id="table-verdicts")[0].all("tbody")[0].all("tr"):
        pair = [line.all("th")[0].text.strip(), line.all("td")[0].text.strip()]
        assert line.attributes["data-rows"].split() == [places[name] for name in pair]
    matrix = built.page.all("div", id="table-verdict_matrix")[0].all("thead")[0].all("th")
    assert [head.attributes.get("data-rows") for head in matrix[1:]] == [places[h.text.strip()] for h in matrix[1:]]
    tasks = built.page.all("div", id="table-tasks")[0].all("thead")[0].all("th")
    assert {head.attributes["data-task"] for head in tasks if "data-task" in head.attributes} == set(
        built.study.tasks.index
    )


def test_downloads_are_the_files_of_the_report(built: Built) -> None:
    links = {
        link.attributes["download"]: link.attributes["href"]
        for link in built.page.all("a")
        if "download" in link.attributes
    }
    kept = {name: base64.b64decode(link.partition(",")[2]) for name, link in links.items()}
    files = [*built.folder.glob("tables/*.md"), *built.folder.glob("tables/*.tex"), *built.folder.glob("figures/*.pdf")]
    wanted = [path for path in files if path.stem != "method_section"]
    assert wanted and [path.name for path in wanted if kept[path.name] != path.read_bytes()] == []
    assert {path.stem for path in wanted if path.suffix == ".md"} <= {
        Path(name).stem for name in kept if name.endswith(".csv")
    }
    assert kept["verdicts.csv"] == (built.folder / "tables" / "verdicts.csv").read_bytes()


def test_charts_are_drawn_from_the_scores_of_the_study(built: Built) -> None:
    (script,) = built.page.all("script", id="data")
    data = json.loads(script.text)
    column = next(item for item in data["columns"] if item["name"] == OVERALL)
    for place, (key, row) in enumerate(built.study.rows.iterrows()):
        assert data["rows"][place]["name"] == row["row"]
        mean, half = built.study.average.percent(str(key), OVERALL)
        assert column["means"][str(place)] == pytest.approx([mean, half], abs=1e-5)
        assert len(column["seeds"][str(place)]) == 5
    pairs = {(one, other): rest for one, other, *rest in data["pairs"][OVERALL]}
    assert len(pairs) == 3
    keys = list(map(str, built.study.rows.index))
    for (one, other), (mean, half, verdict) in pairs.items():
        item = built.inference.comparison(keys[one], keys[other])
        assert item is not None
        assert (mean, half, verdict) == (
            pytest.approx(item.difference.mean * 100, abs=1e-5),
            pytest.approx(item.half_width * 100, abs=1e-5),
            item.verdict,
        )
    marked = {figure.attributes.get("data-chart") for figure in built.page.all("figure")} - {None}
    assert {"scores", "score_vs_cost", "differences"} <= marked <= set(DRAWN)


def test_a_page_without_charts_holds_no_library(make: Make, write: Write, tmp_path: Path) -> None:
    [path] = build(write([make("mse", 1, None, status="failed")], curves=False), tmp_path / "out")
    assert len(read(path).all("script")) == 1 and path.stat().st_size < 100_000


def test_every_marker_of_the_figures_has_a_symbol_of_its_own() -> None:
    assert set(MARKERS) == set(SYMBOLS) and len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_pages_are_small(built: Built) -> None:
    assert (built.folder / "index.html").stat().st_size < 5e6


def test_scripts_of_others_are_as_they_were_and_have_their_licences() -> None:
    scripts = [item for item in PAGE.joinpath("vendor").iterdir() if item.name.endswith(".js")]
    known = PAGE.joinpath("vendor", "README.md").read_text(encoding="utf-8")
    assert len(scripts) == 2
    for item in scripts:
        assert f"`{item.name}`" in known and hashlib.sha256(item.read_bytes()).hexdigest() in known
        licence = PAGE.joinpath("vendor", f"{item.name.partition('.')[0]}.LICENSE").read_text(encoding="utf-8")
        assert "Permission to use, copy, modify, and/or distribute this software" in licence
        assert "</script" not in item.read_text(encoding="utf-8")


def colours() -> Iterator[dict[str, str]]:
    """The colours of the style sheet by name, in light and in dark."""
    blocks = re.findall(r":root \{(.*?)\}", PAGE.joinpath("page.css").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: int) -> None:
    known = list(colours())[scheme]
    on_ground = [(text, ground) for text in ("text", "quiet", "accent", "warning") for ground in ("ground", "raised")]
    on_verdicts = [(f"on-{verdict}", verdict) for verdict in ("better", "worse", "equivalent")]
    for text, ground in [*on_ground, *on_verdicts, ("text", "shade"), ("on-accent", "accent")]:
        dark, light = sorted(luminance(known[name]) for name in (text, ground))
        assert (light + 0.05) / (dark + 0.05) >= LEAST_CONTRAST, (text, ground)
