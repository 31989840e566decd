"""What the documents name is there: files of the repository, modules, links between pages."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "methods/*.md", "results/*.md", "reports/*.md", ".github/**/*.yml")
    for path in ROOT.glob(pattern)
)
PATHS = re.compile(r"(?<![\w./-])(?:bench|methods|tests|docs)/[\w./-]*\w")
MODULES = re.compile(r"(?<![\w.-])(distilbench(?:_methods)?(?:\.\w+)+)")
LINKS = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in LINKS.findall(text) if not (page.parent / link).exists()]
    assert links == []
    # Some go on with a placeholder: `tests/methods/test_<name>.py`.
    missing = [path for path in PATHS.findall(text) if not [*ROOT.glob(f"{path}*")]]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_there(page: Path) -> None:
    missing = []
    for name in set(MODULES.findall(page.read_text(encoding="utf-8"))):
        parts = name.split(".")
        known = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        if name != "distilbench.methods" and not any(_is_module(module) for module in known[: max(1, len(known) - 1)]):
            missing.append(name)
    assert missing == []


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
