"""The page on a study's keys is the one that the code gives, and has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilbench.study.reference import TITLES, markdown
from distilbench.study.sections.section import Section
from distilbench.study.sections.texts import OwnTask
from distilbench.study.study import SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
ALL: dict[str, type[Section]] = {**SECTIONS, "tasks": OwnTask}


def test_the_page_is_up_to_date() -> None:
    command = "python -m distilbench.study.reference > docs/study.md"
    assert PAGE.read_text(encoding="utf-8") == markdown(), f"run: {command}"


@pytest.mark.parametrize(
    ("section", "key"), [(name, key) for name, section in ALL.items() for key in section.model_fields]
)
def test_every_key_has_a_meaning_and_a_row(section: str, key: str) -> None:
    if key in SECTIONS and not section:
        assert f"\n## `{TITLES.get(key, key)}`\n" in markdown()
        return
    meaning = ALL[section].model_fields[key].description
    assert meaning and meaning.rstrip().endswith("."), f"{section}.{key} has no docstring"
    if (section, key) != ("tasks", "name"):
        assert f"| `{key}` |" in markdown()


def test_every_section_says_what_it_is_for() -> None:
    assert all(section.__doc__ and section.__doc__ != Section.__doc__ for section in ALL.values())
