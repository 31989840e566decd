"""What documents, settings and comments name is there: files of the repository, modules, links between pages."""

from __future__ import annotations

import pkgutil
import re
import shlex
from pathlib import Path

import pytest

from distilbench.cli.app import VERBS, parsers

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "*/README.md") for path in ROOT.glob(pattern))
SETTINGS = [
    ROOT / name for name in ("Makefile", "pyproject.toml", ".pre-commit-config.yaml", ".github/workflows/ci.yml")
]
CODE = sorted(path for folder in ("bench", "methods", "tests") for path in (ROOT / folder).rglob("*.py"))
PATHS = re.compile(r"(?<![\w./-])(?:bench|methods|tests|docs)/[\w./-]*\w")
MODULES = re.compile(r"(?<![\w./-])(?:distilbench|distilbench_methods|tests)(?:\.\w+)+")
LINKS = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(rf"\bdistilbench ((?:{'|'.join(VERBS)})\b.*)$", re.MULTILINE)
ENTRY_POINTS = "distilbench.methods"
"""A group of entry points, and no module."""


def resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return name == ENTRY_POINTS
    return True


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    links = LINKS.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, *SETTINGS], ids=relative)
def test_paths_are_there(page: Path) -> None:
    paths = PATHS.findall(page.read_text(encoding="utf-8"))
    # What ends in `_` goes on with a placeholder: `tests/methods/test_<name>.py`.
    assert [path for path in paths if not (ROOT / path).exists() and not path.endswith("_")] == []


@pytest.mark.parametrize("pages", [PAGES, SETTINGS, CODE], ids=["documents", "settings", "code"])
def test_modules_are_there(pages: list[Path]) -> None:
    names = {(name, relative(page)) for page in pages for name in MODULES.findall(page.read_text(encoding="utf-8"))}
    assert [(name, page) for name, page in sorted(names) if not resolves(name)] == []


def commands() -> list[tuple[str, str]]:
    """Every call of distilbench in a page's shell commands."""
    blocks = [(relative(page), block) for page in PAGES for block in SHELL.findall(page.read_text(encoding="utf-8"))]
    return [(page, call) for page, block in blocks for call in COMMANDS.findall(block.replace("\\\n", " "))]


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str) -> None:
    verb, *arguments = shlex.split(command.partition("||")[0], comments=True)
    _, rest = parsers()[verb].parse_known_args(arguments)
    assert [text for text in rest if "=" not in text] == []


def test_there_are_commands() -> None:
    assert len(commands()) > 30
