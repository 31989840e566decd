"""What a user waits for before anything happens: the interpreter's start included."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("code", ["", "import distilbench", "import distilbench as db; db.read_results"])
def bench_start(benchmark: Any, code: str) -> None:
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5, warmup_rounds=1)
