"""The shape of the project: which room may import which, how large a room may be, and what starting must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bench" / "distilbench"
METHODS = ROOT / "methods" / "distilbench_methods"
HEAVY = ("torch", "mteb", "datasets", "transformers")
SPEED = ROOT / "bench" / "speed"
MOST_ENTRIES, MOST_MODULES, MOST_MEMBERS = 17, 12, 15


def files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found, folder
    return found


def imported(path: Path) -> set[str]:
    """Dotted names of all imports in a file, those inside functions included."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    from_modules = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return plain | {f"{node.module}.{alias.name}" for node in from_modules for alias in node.names}


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def allowed() -> dict[str, set[str]]:
    """Room -> the rooms that it may import, as the table in CONTRIBUTING.md has them."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", below)) for room, below in rows}


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that its modules import."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in files(PACKAGE):
        room = path.relative_to(PACKAGE).parts[0]
        if room.endswith(".py"):
            continue
        names = [name.split(".") for name in imported(path)]
        found[room] |= {name[1] for name in names if name[0] == "distilbench" and len(name) > 1} - {room}
    return found


def test_rooms_import_as_the_table_says() -> None:
    table, found = allowed(), rooms()
    assert set(table) == set(found)
    assert {room: below - table[room] for room, below in found.items() if not below <= table[room]} == {}


def test_the_table_has_no_way_back() -> None:
    table = allowed()
    order: list[str] = []
    while left := [room for room in table if room not in order]:
        ready = [room for room in left if table[room] <= set(order)]
        assert ready, f"{left} import each other"
        order += ready


def test_rooms_stay_small() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES
    for folder in {path.parent for path in files(PACKAGE)} - {PACKAGE / "cli"}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, folder.relative_to(PACKAGE)


def test_every_room_says_what_it_owns() -> None:
    for folder in {path.parent for path in files(PACKAGE)}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


@pytest.mark.parametrize("path", files(METHODS), ids=lambda path: path.name)
def test_methods_know_nothing_of_the_bench(path: Path) -> None:
    assert packages(path) - set(sys.stdlib_module_names) <= {"distilbench_methods", "torch"}


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_evaluation_touches_mteb(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] != "evaluation":
        reads_the_hub = path.relative_to(PACKAGE) == Path("data", "hub.py")
        assert not packages(path) & ({"mteb"} if reads_the_hub else {"mteb", "datasets"})


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_module_opens_model_folders(path: Path) -> None:
    if path.name != "stored_model.py":
        assert "sentence_transformers" not in packages(path)


@pytest.mark.parametrize("room", ["reporting", "analysis", "records"])
def test_results_are_read_without_torch(room: str) -> None:
    for path in files(PACKAGE / room):
        assert not packages(path) & set(HEAVY), path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("distilbench", (*HEAVY, "numpy", "pandas", "matplotlib", "rich", "pydantic")),
        ("distilbench.cli.app", (*HEAVY, "pandas", "matplotlib", "rich", "pydantic")),
        ("distilbench.reporting", (*HEAVY, "matplotlib")),
        ("distilbench.gate.run", (*HEAVY, "matplotlib", "scipy.stats")),
        ("distilbench_methods", HEAVY),
        ("distilbench.training.loop", ("mteb", "datasets", "sentence_transformers")),
        ("distilbench.runs.study_run", ("mteb", "datasets", "sentence_transformers")),
    ],
)
def test_imports_stay_light(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(sorted(set({unwanted!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def classes(folder: Path) -> list[tuple[Path, ast.ClassDef]]:
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in files(folder)]
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for folder in (PACKAGE, METHODS, SPEED):
        for path, node in classes(folder):
            places[node.name].append(path.relative_to(ROOT))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def public(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def members(node: ast.ClassDef) -> tuple[list[str], list[str]]:
    """Names of a class's public fields, and of its public methods and properties."""
    fields = [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    return public(fields), public([item.name for item in node.body if isinstance(item, ast.FunctionDef)])


def test_no_class_has_many_members() -> None:
    """Schemas, which have fields only, may have more of them; so may methods, whose fields are hyperparameters."""
    found = {node.name: members(node) for _, node in classes(PACKAGE)}
    too_many = {name for name, (fields, others) in found.items() if others and len(fields) + len(others) > MOST_MEMBERS}
    too_many |= {node.name for _, node in classes(METHODS) if len(members(node)[1]) > MOST_MEMBERS}
    assert too_many == set()
