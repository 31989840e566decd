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
PACKAGES = {
    "distilbench": ROOT / "bench" / "distilbench",
    "distilbench_methods": ROOT / "methods" / "distilbench_methods",
}
POISON = "raise ImportError('a file of the user was imported')\n"
FILES = (
    "bench.py",
    "bench/__init__.py",
    "bench/timing.py",
    "methods.py",
    "methods/__init__.py",
    "core/__init__.py",
    "speed.py",
)
"""What a user's project may hold, and distilbench must not import."""
SCRIPT = """
import distilbench as db

assert db.__version__ and callable(db.load_study)
"""
STUDY = """
import distilbench as db

if __name__ == "__main__":
    study = db.Study(
        name="mine", teacher={teacher!r}, text={{"source": {text!r}}}, student={{"layers": 1}}, budget={{"steps": 2}},
        methods=["mse"], seeds=1, tasks=["DistilbenchSTS"], train={{"batch_size": 16, "max_length": 32}},
    )
    results = db.run(study, progress=False)
    assert set(results.runs["status"]) == {{"completed"}}, results.runs
    db.report(results, "reports")
"""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
ALONE = ["--no-deps", "--no-index"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files that the project is made of, without a network."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bench", "methods"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([*PIP, "wheel", *ALONE, "--no-build-isolation", "-w", folder, source], check=True)
    (built,) = folder.glob("distilbench-*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment with the wheel; it borrows the dependencies from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", *ALONE, wheel], check=True)
    place = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # Comes last on the path; and path files in there, of which one is our editable install, are not read.
    (place / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(commands: Path, folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "DISTILBENCH_CACHE": str(folder / "cache")}
    return subprocess.run(
        [commands / command, *arguments],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def sources() -> set[str]:
    """Where the files of the packages lie once they are installed."""
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == sources()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_git_ignores_no_file_of_the_packages() -> None:
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", *map(str, PACKAGES.values())]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert [path for path in ignored if path and "__pycache__" not in path] == []


def test_it_is_the_wheel_that_is_tested(commands: Path, tmp_path: Path) -> None:
    code = "import distilbench, distilbench_methods as methods; print(distilbench.__file__, methods.__file__)"
    done = run(commands, tmp_path, "python", "-c", code)
    assert done.stdout.count(str(commands.parent)) == 2, done


@pytest.mark.parametrize("file", FILES)
def test_a_project_of_the_user_is_left_alone(commands: Path, tmp_path: Path, file: str) -> None:
    theirs = {file: POISON, "script.py": SCRIPT, "tests/__init__.py": "", "tests/test_it.py": "def test_it(): ...\n"}
    for name, text in theirs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command, *arguments in (
        ["distilbench", "methods"],
        ["python", "script.py"],
        ["python", "-m", "pytest", "tests", "-p", "no:cacheprovider"],
        # As the command `pytest` does it: without the working folder on the path.
        ["python", "-P", "-m", "pytest", "tests", "-p", "no:cacheprovider"],
    ):
        done = run(commands, tmp_path, command, *arguments)
        assert done.returncode == 0, (command, arguments, done.stdout[-500:], done.stderr[-1500:])


def test_the_pytest_plug_in_is_loaded(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text(POISON)
    done = run(commands, tmp_path, "python", "-m", "pytest", "--markers", "-p", "no:cacheprovider")
    assert "distilbench" in done.stdout, done


@pytest.mark.thorough
def test_a_study_runs_from_the_wheel(commands: Path, tmp_path: Path, teacher_folder: Path, text_file: Path) -> None:
    for name in FILES:
        if "/" not in name:
            (tmp_path / name).write_text(POISON)
    (tmp_path / "mine.py").write_text(STUDY.format(teacher=str(teacher_folder), text=str(text_file)))
    done = run(commands, tmp_path, "python", "mine.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "reports" / "mine" / "index.html").is_file()
