"""The shape of the project: who may import whom, and what must not be imported at the start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "mteb", "datasets", "transformers")


def imported(path: Path) -> set[str]:
    """Top-level names of all imports in a file, those inside functions included."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


@pytest.mark.parametrize("path", files("methods"), ids=lambda path: path.name)
def test_methods_know_nothing_of_the_bench(path: Path) -> None:
    outside = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    assert outside <= {"methods", "torch"}


@pytest.mark.parametrize("path", files("bench"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_evaluation_and_the_rival_touch_mteb(path: Path) -> None:
    if "evaluation" not in path.parts and path.name != "rival.py":
        assert not {name.split(".")[0] for name in imported(path)} & {"mteb", "datasets", "sentence_transformers"}


@pytest.mark.parametrize("path", files("bench/report"), ids=lambda path: path.name)
def test_the_report_reads_files_only(path: Path) -> None:
    names = imported(path)
    assert not {name.split(".")[0] for name in names} & set(HEAVY)
    from_bench = {name for name in names if name.startswith("bench")}
    assert all(
        name.startswith("bench.report")
        or name in ("bench.record", "bench.published", "bench.errors", "bench.artefact", "bench.design")
        for name in from_bench
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("bench.cli", (*HEAVY, "pandas", "matplotlib", "rich", "pydantic")),
        ("bench.report", (*HEAVY, "matplotlib")),
        ("bench.gate.run", (*HEAVY, "matplotlib")),
        ("methods", HEAVY),
        ("bench.train", ("mteb", "datasets", "sentence_transformers")),
        ("bench.workbench", ("mteb", "datasets", "sentence_transformers")),
    ],
)
def test_imports_stay_light(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(sorted(set({unwanted!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
