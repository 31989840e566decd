"""What the repository's workflows, its set-up, and the workflows it shows to others run of other people's code."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for pattern in (".github/**/*.yml", ".github/**/*.yaml", "*.md", "docs/**/*.md", "*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
USES = re.compile(r"^\s*(?:- )?uses:\s*(.+)$", re.MULTILINE)
PINNED = re.compile(r"(?:\./\S*|[\w.-]+/[\w./-]+@[0-9a-f]{40}\s+# v\d+\.\d+\.\d+\b.*)")


def test_actions_are_pinned_by_commit() -> None:
    used = [(path.name, use) for path in PAGES for use in USES.findall(path.read_text(encoding="utf-8"))]
    assert used
    assert [(name, use) for name, use in used if not PINNED.fullmatch(use.strip())] == []


LOCKS = {"demo": ["demo"], "dev": ["demo", "dev"]}
"""File of `requirements/` -> the extras that it installs."""
ONE_OF_MANY_BUILDS = re.compile(r"torch|triton|(cuda|nvidia)-.+")
"""What no single hash is right for: the machine decides which build it takes."""
ENTRY = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+?))?(?: \\\n    --hash=sha256:[0-9a-f]{64})+$",
    re.MULTILINE,
)
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)$", re.MULTILINE)


class Locked(NamedTuple):
    version: str
    marker: str | None


def locked(name: str) -> dict[str, Locked]:
    """Package -> what a file of requirements says of it; fails where a line is of no entry."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert ENTRY.sub("", text).strip() == ""
    return {
        canonicalize_name(entry["name"]): Locked(entry["version"], entry["marker"]) for entry in ENTRY.finditer(text)
    }


def needed(extras: list[str]) -> set[str]:
    """Packages that the project needs here with these extras, by what the installed ones say of themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rest = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found, asked = set[str](), set[tuple[str, str]]()
    while rest:
        requirement = Requirement(rest.pop())
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in asked:
                asked.add((name, extra))
                rest += [line for line in _requires(name) if _applies(Requirement(line).marker, extra)]
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _applies(marker: Marker | None, extra: str) -> bool:
    return marker is None or marker.evaluate({"extra": extra})


@pytest.mark.parametrize("name", LOCKS)
def test_what_set_up_installs_is_pinned_by_hash(name: str) -> None:
    found = locked(name)
    assert [package for package in found if ONE_OF_MANY_BUILDS.fullmatch(package)] == []
    missing = needed(LOCKS[name]) - set(found)
    assert [package for package in missing if not ONE_OF_MANY_BUILDS.fullmatch(package)] == []
    pins: dict[str, str] = {canonicalize_name(pin["name"]): pin["version"] for pin in PIN.finditer(_constraints())}
    assert {package: entry.version for package, entry in found.items() if package in pins} == {
        package: pins[package] for package in found if package in pins
    }
    # What other systems alone need is in no environment of this one.
    assert all(entry.marker is not None for package, entry in found.items() if package not in pins)


def _constraints() -> str:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_set_up_installs_by_hash_but_for_torch_and_the_project() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"^\t\$\(PIP_INSTALL\) (.+)$", makefile, re.MULTILINE)
    assert makefile.count("pip install") == 1 and installs == [
        "--require-hashes --no-deps --only-binary :all: -r requirements/$(1).txt",
        "-c constraints.txt torch",
        "--no-deps --no-build-isolation -e .",
    ]
    assert set(re.findall(r"\$\(call install,(\w+)\)", makefile)) == set(LOCKS)


def test_the_image_installs_by_hash_but_for_torch_and_the_project() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [" ".join(line.split()) for line in re.findall(r"uv pip install --system --no-cache ([^&\n]+)", text)]
    assert installs == [
        "--require-hashes --no-deps --only-binary :all: -r /tmp/requirements.txt",
        '--torch-backend "${TORCH}" --constraint /tmp/constraints.txt torch',
        "--no-deps /wheels/*.whl",
    ]
