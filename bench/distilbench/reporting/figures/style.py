"""One look for all figures, and files that are equal byte for byte when the input is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distilbench.core.escape import visible_lines
from distilbench.records.design import TUNED
from distilbench.reporting import Layout

# Okabe and Ito's palette, with the wine of Paul Tol's in place of yellow, which is lost on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
PLACES = (
    *("mse", "ibkd", "codir", "internal-kd", "simcse", "ckd", "rkd", "leaf", "jasper", "ibkd-median", "simdist"),
    *("minilm", "tinybert", "hpd", "sp", "crd", "cosine", "mse-pca", "matryoshka", "rankcse", "listnet", "margin-mse"),
    *("distill-kl", "ibkd-supervised", "ibkd-nce", "codir-paper", "codir-code", "internal-kd-pid", "internal-kd-sid"),
    *("simcse-supervised", "simcse-mlm", "dual-supervision", "embed-distill", "match-nce-gor", "embeddinggemma"),
)
"""Rows whose colour and marker are the same in every study. New names go to the end, or all others change theirs."""
GREY = "#6b6b6b"
WIDTHS = {"one-column": 7.2, "two-column": 3.4}
"""Inches: the text width of a common page, and of one of its two columns."""
NAME_LENGTH = 32
TITLE_SIZE = 9
"""Points, of the message above a figure."""
PNG_DPI = 200
RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "text.parse_math": False,
}


FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS"),
)
"""Fonts of other scripts that systems come with."""


@contextmanager
def styled(name: str, layout: Layout = "one-column") -> Iterator[None]:
    """Draw and save figure `name` inside, for a page of `layout`.

    Its ids in SVG are its own, so that pages can hold several figures.
    """
    settings: Any = {**RC, "font.family": _fonts(), "svg.hashsalt": f"distilbench-{name}"}
    if layout == "two-column":
        # Papers of two columns are set in Times, which these letters are cut after.
        settings |= {"font.family": ["STIXGeneral", *_fonts()], "axes.titlesize": 8, "legend.fontsize": 7}
    settings["figure.figsize"] = (WIDTHS[layout], 1.0)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Where no font here has a glyph, the figure has a box; the tables have the name.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@cache
def _fonts() -> list[str]:
    """The font of all figures, and those here that have what it lacks."""
    return [RC["font.family"], *(name for name in FALLBACKS if name in set(get_font_names()))]


class ShownFigure(Figure):
    """A figure that a notebook shows though pyplot, which would see to that, was not imported."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure as wide as the page or column, `height` in inches."""
    return ShownFigure(figsize=(width(), height), layout="constrained", facecolor="white")


def width() -> float:
    """Inches, of the figures that are drawn here and now; see `styled`."""
    return float(matplotlib.rcParams["figure.figsize"][0])


def is_narrow() -> bool:
    """Whether figures are for one of two columns."""
    return width() < WIDTHS["one-column"]


def show_names(figure: Figure, shown: Callable[[str], str] = visible_lines) -> None:
    """Let every text of a figure be one that can be seen, and that XML can hold."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        # Names at ticks come from a function, whenever the figure is drawn.
        if isinstance(formatter := axis.get_major_formatter(), FuncFormatter):
            formatter.func = _shown(formatter.func, shown)
    for text in figure.findobj(Text):
        text.set_text(shown(text.get_text()))


def _shown(named: Callable[..., str], shown: Callable[[str], str]) -> Callable[..., str]:
    return lambda value, place: shown(named(value, place))


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write the figure in all formats, laid out once.

    `Figure.savefig` would draw it twice for each format.
    """
    show_names(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")
    none: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(folder / f"{name}.svg", metadata=none)  # type: ignore[no-untyped-call]
    figure.set_dpi(PNG_DPI)
    FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata={"Software": None})  # type: ignore[no-untyped-call]
    _save_pdf(figure, folder / f"{name}.pdf")


def _save_pdf(figure: Figure, path: Path) -> None:
    def write() -> None:
        FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None})  # type: ignore[no-untyped-call]

    try:
        write()
    except IndexError:
        # Of some scripts, a letter is several glyphs, which matplotlib 3.11 can draw in all formats but this one.
        show_names(figure, lambda text: text.encode("ascii", "backslashreplace").decode())
        write()


def logarithmic(axes: Axes, side: Literal["x", "y"] = "x") -> None:
    """A logarithmic axis, of what is drawn, with plain numbers: matplotlib's are formulas, which are switched off."""
    axes.set(**{f"{side}scale": "log"})
    axis = axes.xaxis if side == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        LogLocator(subs=(1,) if high > 1000 * low else (1, 2, 5) if high > 5 * low else range(1, 10))
    )
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def looks(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Row key -> colour and marker, which belong to the row's label, in whatever study it stands.

    Labels that distilbench does not know take a place of their own by their letters, and the next free one where it is
    taken: by another row, or, while there are others, by another row's colour.
    """
    labels = runs.loc[runs["role"] == "method"].groupby("key")["label"].first()
    found: dict[str, int] = {}
    for key in sorted(labels.index, key=lambda key: (labels[key] not in PLACES, str(labels[key]), str(key))):
        found[str(key)] = _free_place(str(labels[key]), set(found.values()))
    return {
        key: (COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)])
        for key, place in found.items()
    }


def _free_place(label: str, taken: set[int]) -> int:
    count = len(COLOURS) * len(MARKERS)
    if label in PLACES:
        first, step = PLACES.index(label), len(COLOURS)
    elif (base := label.removesuffix(TUNED)) in PLACES:
        # The same method in another regime: its colour, with another marker.
        first, step = PLACES.index(base) + len(COLOURS), len(COLOURS)
    else:
        first, step = int(sha256(label.encode()).hexdigest(), 16) % count, 1
    order = [*range(first, count, step), *range(count)] if step > 1 else [*range(first, count), *range(first)]
    colours = {place % len(COLOURS) for place in taken}
    if step == 1 and len(colours) < len(COLOURS):
        order = [place for place in order if place % len(COLOURS) not in colours]
    return next((place for place in order if place not in taken), first)


def short(name: str) -> str:
    """`name` without its middle where it would crowd a figure; the end tells variants apart."""
    return name if len(name) <= NAME_LENGTH else f"{name[:12]}…{name[-20:]}"
