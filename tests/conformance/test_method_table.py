"""The page on all methods is the one that the code gives."""

from __future__ import annotations

from pathlib import Path

import distilbench_methods
from distilbench.conformance.method_table import markdown

PAGE = Path(__file__).parents[2] / "methods" / "README.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: distilbench methods --markdown > methods/README.md"


def test_every_method_and_variant_has_a_row_and_every_method_a_source() -> None:
    page = markdown()
    for name in [*distilbench_methods.registry(), *distilbench_methods.VARIANTS]:
        assert f"| `{name}` |" in page
    for name in distilbench_methods.registry():
        assert f"\n## {name}\n" in page
    assert page.count("*Source.*") == len(distilbench_methods.registry())
