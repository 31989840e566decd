"""Names of others in every medium: what reads the medium shows the name, and computes or runs nothing of it."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from distilbench.core.escape import escape_github, escape_latex, escape_markdown, visible
from distilbench.models.export import model_card
from distilbench.reporting.formats.render import Table, to_markdown, write_csv
from tests.cli.test_output import UNSEEN, names

NAMES = [name for name in names() if "\ud800" not in name]
"""What a table can hold; a half of a pair of UTF-16 it cannot."""
RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ORDERS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


def rendered(source: str) -> list[str]:
    """The texts of paragraphs, headings and cells as a reader sees them; markup in them shows as its kind."""
    texts = []
    for block in RENDERER.parse(source):
        if block.type == "inline":
            parts = block.children or []
            texts.append("".join(p.content if p.type in ("text", "text_special") else f"<{p.type}>" for p in parts))
    return texts


def on_one_line(name: str) -> str:
    return visible(" ".join(name.split()))


@pytest.mark.parametrize(
    "name", ["_a_", "~~s~~", "# a", "- a", "-", "+ a", "1. a", "1) a", "---", "a #", "a ##", "*a*"]
)
def test_markdown_shows_what_would_be_markup(name: str) -> None:
    assert rendered(escape_markdown(name)) == [name]
    assert rendered(f"### {escape_markdown(name)}") == [name]


def test_markdown_shows_any_name() -> None:
    for name in NAMES:
        shown = on_one_line(name)
        assert rendered(escape_markdown(name)) == [shown] * bool(shown), name
        table = pd.DataFrame({"a": [name]})
        assert rendered(to_markdown(Table("t", "c", table, table, [], None))) == ["c", "a", shown], name


def test_underscores_between_letters_stay() -> None:
    assert escape_markdown("sts_12") == "sts_12"


def test_a_model_card_shows_any_name() -> None:
    for name in NAMES:
        _, front, body = model_card({"Teacher": name}, name or None, name).split("---\n", 2)
        assert yaml.safe_load(front)["license"] == visible(name)
        assert on_one_line(name) in rendered(body)


@pytest.mark.parametrize("order", ORDERS)
def test_a_text_is_no_formula_and_a_number_stays_one(order: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"row": [order, "b"], order: [-0.5, 1.0]})
    write_csv(frame, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        (_, heading), (text, number), (other, _) = csv.reader(stream)
    assert (number, other) == ("-0.5", "b") and {heading[0], text[0]} <= {"'", "\\"}


def test_no_name_is_a_formula(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": NAMES, "value": range(len(NAMES))})
    write_csv(frame, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        _, *rows = csv.reader(stream)
    assert [row[1] for row in rows] == [str(number) for number in range(len(NAMES))]
    assert not [row[0] for row in rows if row[0].startswith(tuple("=+-@\t\r"))]


@pytest.mark.parametrize("sign", UNSEEN)
def test_what_has_no_width_is_seen(sign: str) -> None:
    assert visible(f"a{sign}b") == f"a{sign.encode('unicode_escape').decode()}b"


def test_every_format_character_is_seen() -> None:
    unseen = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert [sign for sign in unseen if not visible(sign).isascii()] == []
    assert visible("müller 你好 \U0001f600 ±—") == "müller 你好 \U0001f600 ±—"


def test_what_is_not_assigned_and_shows_nothing_is_seen() -> None:
    for sign in ("\u2065", "\ufff0", "\U000e0080", "\U000e0fff"):
        assert visible(f"m{sign}se") == f"m{ascii(sign)[1:-1]}se"


def test_a_character_has_one_variation_selector_and_letters_have_none() -> None:
    assert visible("\u2764\ufe0f \u845b\U000e0100") == "\u2764\ufe0f \u845b\U000e0100"
    assert visible("mse\ufe0f") == "mse\\ufe0f" and visible("\ufe0fa") == "\\ufe0fa"
    assert visible("\u2764\ufe0f\ufe01\ufe02") == "\u2764\ufe0f\\ufe01\\ufe02"


def test_joiners_stay_where_scripts_need_them() -> None:
    family, persian = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert (visible(family), visible(persian)) == (family, persian)
    assert visible("m\u200dse") == "m\\u200dse" and visible("mse\u200d") == "mse\\u200d"


@pytest.mark.parametrize("name", ["[1ex] a", "*a"])
def test_a_row_of_latex_is_no_option_of_the_one_before(name: str) -> None:
    assert escape_latex(name) == f"{{{name[0]}}}{name[1:]}"


def test_a_workflow_command_of_github_has_one_line_and_its_own_properties() -> None:
    assert escape_github("50 % : a, b") == "50 %25 : a, b"
    assert escape_github("50 % : a, b", is_property=True) == "50 %25 %3A a%2C b"
    for text in ("a\nb", "a\rb", "a\r\n::error::b"):
        for is_property in (False, True):
            assert not {"\n", "\r"} & set(escape_github(text, is_property=is_property))
    assert "::" not in escape_github("::error::b", is_property=True)
