"""The Dockerfile, read: what it copies is there and sent, what it uses is declared, and what it starts exists."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from distilbench.core.machine import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
OF_THE_WHEEL = ["pyproject.toml", "README.md", "LICENSE", "bench", "methods"]
"""What tests/test_wheel.py builds the wheel from, too."""


def instructions() -> list[tuple[str, str]]:
    """Instruction and what follows it, with comments left out and continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_what_is_copied_is_there_and_in_the_context() -> None:
    sent = {
        line.removeprefix("!").strip("/")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [name for rest in values("COPY") if not rest.startswith("--from=") for name in rest.split()[:-1]]
    assert copied == [*OF_THE_WHEEL, "constraints.txt", "requirements/demo.txt"] and set(copied) == sent
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_stages_and_arguments_are_declared() -> None:
    stages = [match[1] for rest in values("FROM") if (match := re.search(r" AS (\w+)$", rest))]
    assert re.findall(r"--from=(\w+)", " ".join(values("COPY"))) == stages
    declared = {rest.partition("=")[0]: rest.partition("=")[2] for rest in values("ARG")}
    used = set(re.findall(r"\$\{(\w+)\}", " ".join(rest for _, rest in instructions())))
    assert used == set(declared) and declared["TORCH"] == "cpu"


def test_it_starts_a_command_of_the_wheel_on_a_python_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert json.loads(values("ENTRYPOINT")[0])[0] in project["scripts"]
    (extra,) = re.findall(r"requirements/(\w+)\.txt", " ".join(values("COPY")))
    assert extra in project["optional-dependencies"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    for rest in values("FROM"):
        version = re.search(r"^python:(\d+\.\d+)-slim", rest)
        assert version is not None and f'"{version[1]}"' in workflow
    assert CACHE_VARIABLE in values("ENV")[0]
