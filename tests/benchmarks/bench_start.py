"""What a user waits for before anything happens: the interpreter's start included."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("code", ["", "import distilbench", "import distilbench as db; db.read_results"])
def bench_start(benchmark: BenchmarkFixture, code: str) -> None:
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5, warmup_rounds=1)
