"""What a node of a cluster does: one run, with what the study's runs share kept from one run to the next."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.machine import REPORTED_PACKAGES, Settings
from distilbench.core.quiet import quiet_libraries
from distilbench.runs.engines.depot import Depot
from distilbench.runs.engines.layout import Layout, use
from distilbench.runs.engines.shipping import Shipment, fetch_model, send_run, unpacked
from distilbench.runs.run import Finished, finish_run
from distilbench.runs.workbench import Workbench
from distilbench.study.study import Run, Study

REPORT_SECONDS = 1.0
"""How often a task tells how far it is."""

Answer = Finished | UserError | None
"""What came of a run; what ends the whole study; None while another process is at the run."""


@dataclass(frozen=True)
class Order:
    """What every task of a study is given."""

    study: Study
    settings: Settings
    layout: Layout
    folder: Path
    """Where the driver was started: the study's paths may be relative to it."""
    versions: dict[str, str]
    """The driver's packages. Another version may give other results under the same run id."""
    shipment: Shipment | None = None
    """Where the study's parts are to be fetched from; None where all nodes share a file system."""


def installed() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return {name: version(name) for name in REPORTED_PACKAGES}


def execute(order: bytes, run: Run, board: Any, number: int) -> Answer:
    """The body of a task. `order` is a pickled `Order`; `board` a handle of the actor `Board`."""
    reported = 0.0

    def report(share: float) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            board.report.remote(number, share)

    report(0.0)
    try:
        return _finish(*_prepared(order), run, report)
    except UserError as error:
        return error


def _finish(bench: Workbench, depot: Depot | None, run: Run, report: Callable[[float], None]) -> Finished | None:
    if depot is None:
        return finish_run(bench, run, report)
    fetch_model(bench, run, depot)
    finished = finish_run(bench, run, report)
    if finished is not None:
        send_run(bench, run, depot)
    return finished


@lru_cache(maxsize=1)
def _prepared(order: bytes) -> tuple[Workbench, Depot | None]:
    given: Order = pickle.loads(order)
    _refuse_other_versions(given.versions)
    quiet_libraries()
    use(given.layout)
    with suppress(FileNotFoundError):
        os.chdir(given.folder)
    if given.shipment is None:
        return Workbench(given.study, given.settings), None
    return unpacked(given.study, given.settings, given.shipment), Depot(given.shipment.uri)


def _refuse_other_versions(expected: dict[str, str]) -> None:
    found = installed()
    other = [f"{name} {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]]
    if other:
        raise UserError(f"the node {os.uname().nodename} has {', '.join(other)}; install the driver's versions there")
