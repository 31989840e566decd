from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis.frame import make_study
from distilbench.analysis.inference import Inference
from distilbench.core.errors import UserError
from distilbench.records.design import Design
from distilbench.records.example_texts import TEXTS_FILE
from distilbench.records.record import CURVE_FILE, RECORD_FILE, Record
from distilbench.reporting import build
from distilbench.reporting.figures.drawn import FigureData, reach
from distilbench.reporting.figures.scores import score_vs_cost, seed_spread

Make = Callable[..., Record]
Write = Callable[..., Path]
WORDS = ("cat", "dog", "bird", "horse", "mouse", "snake", "cow", "sheep", "goat", "pig")
pytestmark = pytest.mark.figures
FIGURES = {"scores", "score_vs_cost", "tasks", "seed_spread", "learning_curves"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, nasty_study: Callable[[Path], Path]) -> tuple[Path, Path]:
    """A study's folder and its report: with an unfriendly name and a diverged run, made once for this module."""
    folder = nasty_study(tmp_path_factory.mktemp("results") / "demo")
    [page] = build(folder, tmp_path_factory.mktemp("out"))
    return folder, page.parent


class Ids(HTMLParser):
    """Collects what a browser would load, and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.loaded += [values[name] for name in ("src", "href", "xlink:href", "data") if name in values]
        self.scripts += tag == "script"


def test_the_folder_holds_every_format(built: tuple[Path, Path]) -> None:
    _, out = built
    figures = {path.name for path in (out / "figures").iterdir()}
    tables = {path.name for path in (out / "tables").iterdir()}

    assert figures == {f"{name}.{ending}" for name in FIGURES for ending in ("svg", "pdf", "png")}
    assert {f"{name}.{ending}" for name in ("main", "tasks", "costs", "settings") for ending in ("md", "tex")} <= tables
    assert {"main.csv", "runs.csv", "scores.csv", "method_section.md", "method_section.tex"} <= tables


def test_the_same_records_give_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = built
    [page] = build(folder, tmp_path)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())

    assert files == sorted(path.relative_to(page.parent) for path in page.parent.rglob("*") if path.is_file())
    assert [str(file) for file in files if (out / file).read_bytes() != (page.parent / file).read_bytes()] == []


def test_a_module_in_the_working_directory_is_not_run(make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make("mse", seed, None, status="failed") for seed in range(30)], curves=False)
    (tmp_path / "json.py").write_text("import pathlib; pathlib.Path('was-run').touch()\n", encoding="utf-8")
    command = [str(Path(sys.executable).with_name("distilbench")), "report", str(folder), "--out", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    assert (tmp_path / "out" / "demo" / "index.html").is_file()
    assert not (tmp_path / "was-run").exists()


def test_a_row_that_lacks_a_task_breaks_no_figure(plain: list[Record], make: Make) -> None:
    """As after a study was run again with fewer tasks and more rows."""
    study = make_study("demo", [*plain, *(make("ibkd", seed, (0.5 + seed / 100, 0.6)) for seed in (1, 2))])
    figure = seed_spread(FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design()))
    assert figure is not None
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert any("simcse" in label for label in drawn)
    assert not any("ibkd" in label for label in drawn)


def test_long_names_are_told_apart_and_fit_below_a_figure(make: Make) -> None:
    labels = [f"internal-kd+attention_weight-0{more}" for more in ("", "+hidden_weight-0", "+final_weight-0")]
    records = [make(label, seed, (0.5, 0.6, 0.4)) for label in labels for seed in (1, 2)]
    study = make_study("demo", records)
    figure = score_vs_cost(FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design()))
    assert figure is not None
    assert len({text.get_text() for text in figure.legends[0].get_texts()}) == len(labels)
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_the_page_needs_nothing_beside_it(built: tuple[Path, Path]) -> None:
    text = (built[1] / "index.html").read_text(encoding="utf-8")
    page = Ids()
    page.feed(text)

    assert [link for link in page.loaded if not link.startswith(("#", "data:"))] == []
    assert "url(http" not in text and "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.loaded if link.startswith("#")} <= set(page.ids)
    without_scripts = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
    assert set(re.findall(r"url\(#([^)]+)\)", without_scripts)) <= set(page.ids)


def test_names_on_the_page_are_escaped(built: tuple[Path, Path]) -> None:
    text = (built[1] / "index.html").read_text(encoding="utf-8")
    page = Ids()
    page.feed(text)

    assert page.scripts == 4  # what is drawn, the two parts of the library, and the page's own
    assert "&lt;script&gt;alert(&#39;a_b&amp;c $x&#39;)&lt;/script&gt;" in text


def test_the_page_lists_every_run(built: tuple[Path, Path]) -> None:
    text = (built[1] / "index.html").read_text(encoding="utf-8")

    for part in ("temperature", "loss is not &lt;finite&gt;", "diverged", "weights", "it covers seeds only"):
        assert part in text
    assert text.count('<details class="run"') == 6


def test_a_smoke_run_is_marked_and_figures_without_data_are_left_out(make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make("mse", 1, None, status="failed", limit=50)], curves=False)
    [page] = build(folder, tmp_path / "out")

    assert page.read_text(encoding="utf-8").count("smoke run (--limit 50): not a result") >= 5
    assert list((page.parent / "figures").iterdir()) == []


def test_a_folder_of_studies_gives_one_page_each(
    make: Make, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.reporting.figures.all_figures.FIGURES", {})
    for name in ("one", "two"):
        write([make("mse", 1, (0.6, 0.7, 0.5))], name)
    (tmp_path / "results" / "empty").mkdir()
    pages = build(tmp_path / "results", tmp_path / "out")

    assert pages == [tmp_path / "out" / name / "index.html" for name in ("one", "two")]
    assert all(page.is_file() for page in pages)


def test_an_old_report_is_replaced(make: Make, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilbench.reporting.figures.all_figures.FIGURES", {})
    folder = write([make("mse", 1, (0.6, 0.7, 0.5))])
    [page] = build(folder, tmp_path / "out")
    (page.parent / "stale").touch()
    build(folder, tmp_path / "out")

    assert not (page.parent / "stale").exists()


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        build(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match="holds no records"):
        build(tmp_path, tmp_path / "out")


def test_an_output_folder_that_cannot_be_made(make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make("mse", 1, (0.6, 0.7, 0.5))])
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="cannot be written"):
        build(folder, tmp_path / "file")


def test_records_and_foreign_folders_are_never_replaced(make: Make, write: Write, tmp_path: Path) -> None:
    folder = write([make("mse", 1, (0.6, 0.7, 0.5))])
    with pytest.raises(UserError, match="would replace the records"):
        build(folder, folder.parent)
    (tmp_path / "out" / "demo").mkdir(parents=True)
    (tmp_path / "out" / "demo" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not a report"):
        build(folder, tmp_path / "out")

    assert (folder / "mse-1" / "record.json").is_file()


@pytest.mark.parametrize("name", [CURVE_FILE, RECORD_FILE])
def test_a_file_that_was_changed_afterwards_is_named(make: Make, write: Write, tmp_path: Path, name: str) -> None:
    folder = write([make("mse", 1, (0.6, 0.7, 0.5))])
    content = bytearray((folder / "mse-1" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "mse-1" / name).write_bytes(content)

    with pytest.raises(UserError, match=rf"mse-1 is damaged: {name} is not as it was written; delete it and"):
        build(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_start_is_light_and_nothing_imports_torch() -> None:
    code = """
import sys
import distilbench.reporting
print([name for name in ("pandas", "scipy", "rich", "matplotlib") if name in sys.modules])
import distilbench.reporting.write, distilbench.reporting.figures.all_figures, distilbench.reporting.page.assemble
print([name for name in ("torch", "mteb", "transformers", "matplotlib.pyplot") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["[]", "[]"]


def test_error_bars_have_no_negative_length() -> None:
    # The mean of three equal costs lies above all of them, by rounding.
    mean = (0.1 + 0.1 + 0.1) / 3
    assert mean > 0.1
    assert reach(mean, 0.1, 0.1) == [[mean - 0.1], [0.0]]
    assert reach(2.0, 1.5, 4.0) == [[0.5], [2.0]]


def test_a_study_says_how_many_of_its_examples_share_texts(
    cli: Callable[..., tuple[int, str, str]], study: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = pd.DataFrame(
        {
            "sentence1": [f"the {word} is in the house" for word in WORDS] * 2,
            "sentence2": [f"there is a {word} somewhere" for word in [*WORDS, *reversed(WORDS)]],
            "score": np.linspace(0, 5, 2 * len(WORDS)).round(1),
        }
    )
    # The second task holds three pairs of the first, turned round and in capitals.
    again = pairs.rename(columns={"sentence1": "sentence2", "sentence2": "sentence1"}).head(3)
    again = again.assign(sentence1=again["sentence1"].str.upper())
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    again.to_csv(tmp_path / "again.csv", index=False)
    tasks = [{"pairs": {"source": str(tmp_path / "pairs.csv")}}, {"again": {"source": str(tmp_path / "again.csv")}}]
    folder = tmp_path / "results" / "tiny"

    assert cli("run", study(tasks=tasks, seeds=2))[0] == 0
    assert cli("report", folder, "--out", tmp_path / "known")[0] == 0
    (folder / TEXTS_FILE).unlink()
    assert cli("report", folder, "--out", tmp_path / "unknown")[0] == 0
    assert cli("run", study(tasks=tasks, seeds=2))[0] == 0

    known, unknown = ((tmp_path / name / "tiny" / "tables" / "main.md").read_text() for name in ("known", "unknown"))
    count = 2 * len(WORDS) + 3
    assert f"Of {count} examples, 6 stand in the tasks more than once and {count} share a text with another" in known
    assert "Which examples share texts is not known" in unknown
    assert (folder / TEXTS_FILE).is_file()
