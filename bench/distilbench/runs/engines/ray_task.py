"""What a node of a cluster does: one run, with what the study's runs share kept from one run to the next."""

from __future__ import annotations

import os
import pickle
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.libraries import log_level, logging_at, quiet_libraries
from distilbench.core.machine import REPORTED_PACKAGES, Settings
from distilbench.runs.engines.engine import Job
from distilbench.runs.engines.layout import Layout, use
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.prepared import prepare_run
from distilbench.study.study import Run, Study
from distilbench.training.online import ALONE

REPORT_SECONDS = 1.0
"""How often a task tells how far it is."""


@dataclass(frozen=True)
class TaskOrder:
    """What every task of a study is given."""

    study: Study
    settings: Settings
    layout: Layout
    job: Job[Any]
    folder: Path
    """Where the driver was started: the study's paths may be relative to it."""
    versions: dict[str, str]
    """The driver's packages. Another version may give other results under the same run id."""
    log_level: int | None = field(default_factory=log_level)
    """The driver's."""


def installed() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return {name: version(name) for name in REPORTED_PACKAGES}


def execute(order: bytes, run: Run, board: Any, number: int) -> Any:
    """The body of a task: what the job gives, or the `UserError` that ends the whole study.

    `order` is a pickled `TaskOrder`; `board` a handle of the actor `Board`.
    """
    reported = 0.0

    def report(share: float) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            board.report.remote(number, share)

    report(0.0)
    given: TaskOrder = pickle.loads(order)
    with logging_at(given.log_level):
        try:
            return given.job.do(prepare_run(_inputs(order), run), report, ALONE)
        except UserError as error:
            return error


@lru_cache(maxsize=1)
def _inputs(order: bytes) -> Inputs:
    given: TaskOrder = pickle.loads(order)
    _refuse_other_versions(given.versions)
    quiet_libraries()
    use(given.layout)
    with suppress(FileNotFoundError):
        os.chdir(given.folder)
    return make_inputs(given.study, given.settings)


def _refuse_other_versions(expected: dict[str, str]) -> None:
    here = installed()
    other = [f"{name} {here[name]} instead of {expected[name]}" for name in expected if here[name] != expected[name]]
    if other:
        raise UserError(f"the node {platform.node()} has {', '.join(other)}; install the driver's versions there")
