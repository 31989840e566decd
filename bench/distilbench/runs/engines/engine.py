"""What an engine is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.runs.run import Finished
from distilbench.study.study import Run

OnProgress = Callable[[Run, float], None]
"""Told of the share of a run that is done: 0 when it begins."""
Engine = Callable[[list[PreparedRun], OnProgress], Iterator[Finished]]
"""Executes runs of equal inputs, at least one, and yields each as it is finished, in any order. Runs that another
process is working on are left to it, and waited for."""
