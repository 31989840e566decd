"""What is told while a study runs: nothing, or a line for each finished run and, on a terminal, a bar."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from distilbench.core.escape import visible
from distilbench.records.design import Trial
from distilbench.runs.cost import run_flops
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.runs.run import Finished
from distilbench.study.study import Run

MOST_NAMED = 2
SPEED_SECONDS = 600.0
"""The time over which the speed is measured that the remaining time follows from."""


class Watch:
    """Is told how far a study is, and shows nothing of it."""

    def announce(self, text: str) -> None:
        """Hear of something that takes time, or that the reader should know."""

    def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
        """Hear of a trial of a row: which of how many, and whether it was there already."""

    def begin(self, runs: Sequence[PreparedRun]) -> None:
        """Hear of all runs of the study, before the first of them."""

    def progress(self, run: Run, share: float) -> None:
        """Hear what share of a run is done: 0 when it begins."""

    def finished(self, item: Finished) -> Finished:
        """Hear of a run that is done, and give it back."""
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The study ended, or was ended."""


class ProgressBar(Watch):
    """Writes lines to stderr; in a terminal or a notebook with a bar below them."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._console = Console(stderr=True, highlight=False, emoji=False)
        # Without ipywidgets, rich warns in a notebook in place of drawing.
        in_notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None
        shows_a_bar = self._console.is_terminal or in_notebook
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not shows_a_bar,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._task = self._bar.add_task(visible(study), total=None)
        self._runs: list[PreparedRun] = []
        self._done: list[Finished] = []
        self._shares: dict[tuple[str, int], float] = {}
        self._costs: dict[tuple[str, int], float] = {}

    def announce(self, text: str) -> None:
        self._say(f"{self._study}: {text}")

    def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
        score = trial.error if trial.score is None else f"dev {100 * trial.score:.2f}"
        settings = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.hyperparameters.items()
        )
        number, total = place
        self._say(f"[trial {number}/{total}] {label}: {settings}: {score}{' (found complete)' if known else ''}")

    def begin(self, runs: Sequence[PreparedRun]) -> None:
        self._runs = list(runs)

    def progress(self, run: Run, share: float) -> None:
        if self._bar.disable:
            return
        if not self._costs:
            self._weigh()
        self._shares[_name(run)] = share
        self._update()

    def finished(self, item: Finished) -> Finished:
        self._done.append(item)
        self._shares.pop(_name(item.run), None)
        self._say(f"[{len(self._done)}/{len(self._runs)}] {_one_line(item)}")
        if self._costs:
            self._update()
        return item

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _say(self, line: str) -> None:
        line = visible(line)
        # A line that goes past the bar would be overwritten by it; one that is wrapped could not be searched for.
        if self._bar.disable:
            sys.stderr.write(f"{line}\n")
        else:
            self._console.print(line, markup=False, soft_wrap=True)

    def _weigh(self) -> None:
        """The remaining time goes by what the runs that are not done are estimated to cost."""
        done = {_name(item.run) for item in self._done}
        left = [run for run in self._runs if _name(run.cell) not in done]
        self._costs = dict(zip((_name(run.cell) for run in left), run_flops(left), strict=True))
        self._bar.reset(self._task, total=sum(self._costs.values()))

    def _update(self) -> None:
        done = sum(self._costs.get(_name(item.run), 0.0) for item in self._done)
        begun = sum(self._costs.get(name, 0.0) * share for name, share in self._shares.items())
        states = Counter(item.record.status == "failed" for item in self._done)
        names = ", ".join(f"{label} seed {seed}" for label, seed in list(self._shares)[:MOST_NAMED])
        more = "" if len(self._shares) <= MOST_NAMED else " and others"
        description = f"{len(self._shares)} running ({names}{more}), {states[False]} done, {states[True]} failed"
        self._bar.update(self._task, completed=done + begun, description=visible(description))


def _name(run: Run) -> tuple[str, int]:
    return run.entry.label, run.seed


def _one_line(item: Finished) -> str:
    record = item.record
    scores = ", ".join(f"{task} {100 * scores['main_score']:.2f}" for task, scores in record.scores.items())
    seconds = sum(record.ledger["seconds"].values())
    how = "found complete" if item.reused else f"{seconds:.0f} s"
    outcome = scores or f"{record.status}: {record.error or 'the loss is not finite'}"
    return f"{record.label} seed {record.seed}: {outcome} ({how})"
