"""The wheel in an environment of its own: what it holds, and users' projects that it must not get in the way of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POISON = "raise ImportError('a file of the user was imported')\n"
PROJECTS = {
    "bench.py": POISON,
    "bench/__init__.py": POISON,
    "methods.py": POISON,
    "methods/__init__.py": POISON,
    "bench/timing.py": POISON,
    "core/__init__.py": POISON,
}
"""A file that a user's project may hold -> what it does when it is imported."""
SCRIPT = """
import distilbench as db

study = db.load_study("demo", seeds=2)
assert study.name == "demo" and db.__version__
print(db.conform.__doc__)
"""


COMMAND = """
import sys
from importlib.metadata import entry_points

(point, *_) = entry_points(group="console_scripts", name="distilbench")
sys.argv = ["distilbench", "methods"]
sys.exit(point.load()())
"""
"""What the installed command does."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files that the project is made of, without a network."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bench", "methods"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source], check=True)
    (built,) = folder.glob("distilbench-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel; it borrows the dependencies, but no editable install."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    place = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    # Added behind; and path files there, of which one is our editable install, are not read.
    (place / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "DISTILBENCH_CACHE": str(folder / "cache")}
    environment, command = {**os.environ, **own}, [str(python), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in (
            ("distilbench", ROOT / "bench" / "distilbench"),
            ("distilbench_methods", ROOT / "methods" / "distilbench_methods"),
        )
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources


def test_it_is_the_wheel_that_is_tested(python: Path, tmp_path: Path) -> None:
    code = "import distilbench, distilbench_methods as methods; print(distilbench.__file__, methods.__file__)"
    done = run(python, tmp_path, "-c", code)
    assert all(str(python.parents[1]) in path for path in done.stdout.split()), done


@pytest.mark.parametrize("file", PROJECTS)
def test_a_project_of_the_user_is_left_alone(python: Path, tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROJECTS[file])
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "test_theirs.py").write_text("def test_one():\n    assert True\n")
    plain = "import sys; del sys.path[0]; import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))"
    for arguments in (["script.py"], ["-m", "pytest", "-q", "-p", "no:cacheprovider"], ["-c", plain], ["-c", COMMAND]):
        done = run(python, tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stdout[-500:], done.stderr[-1500:])


def test_the_pytest_plug_in_is_loaded(python: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text(POISON)
    done = run(python, tmp_path, "-m", "pytest", "--markers", "-p", "no:cacheprovider")
    assert "distilbench" in done.stdout, done


def test_a_study_runs_from_the_wheel(python: Path, tmp_path: Path, teacher_folder: Path, text_file: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import distilbench as db\n"
        f"study = db.Study(name='mine', teacher={str(teacher_folder)!r}, text=dict(source={str(text_file)!r}),\n"
        "    student=dict(layers=1), budget=dict(steps=2), methods=['mse'], seeds=2, tasks=['DistilbenchSTS'],\n"
        "    train=dict(batch_size=16, max_length=32))\n"
        # Its workers must not import this script, which would run a study of its own in each.
        "results = db.run(study, progress=False, jobs=2)\n"
        "assert set(results.runs['status']) == {'completed'}, results.runs\n"
        "print(db.report(results, 'reports')[0])\n"
    )
    done = run(python, tmp_path, "mine.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "reports" / "mine" / "index.html").is_file()
