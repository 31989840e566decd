"""What the terminal shows while a study runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from distilbench.runs.cost import run_flops
from distilbench.runs.run import Engine, Finished, run_study
from distilbench.runs.workbench import Workbench
from distilbench.study.study import Run, runs_of

MOST_NAMED = 2
SPEED_SECONDS = 600.0
"""The time over which the speed is measured that the remaining time follows from."""


def run_with_progress(benches: Sequence[Workbench], engine: Engine) -> list[Finished]:
    """Run the parts of a study with a line for each finished run and, on a terminal, a bar; what was finished."""
    total, found = sum(len(runs_of(bench.study)) for bench in benches), list[Finished]()
    for bench in benches:
        found += _part(bench, engine, len(found), total)
    return found


def _part(bench: Workbench, engine: Engine, before: int, total: int) -> list[Finished]:
    """The runs of one part in its order; `before` of the study's `total` are done."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    runs = runs_of(bench.study)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=SPEED_SECONDS,
    ) as bar:
        shown = _Shown(bench, runs, bar, before, total)
        for item in run_study(bench, engine, shown.on_progress):
            shown.on_finished(item)
    return sorted(shown.finished, key=lambda item: runs.index(item.run))


class _Shown:
    def __init__(self, bench: Workbench, runs: list[Run], bar: Progress, before: int, total: int) -> None:
        self.finished: list[Finished] = []
        self._bench, self._runs, self._bar, self._before, self._total = bench, runs, bar, before, total
        self._task = bar.add_task(bench.study.name, total=None)
        self._shares: dict[tuple[str, int], float] = {}
        self._costs: dict[tuple[str, int], float] = {}

    def on_progress(self, run: Run, share: float) -> None:
        if self._bar.disable:
            return
        if not self._costs:
            self._weigh()
        self._shares[_name(run)] = share
        self._update()

    def on_finished(self, item: Finished) -> None:
        self.finished.append(item)
        self._shares.pop(_name(item.run), None)
        sys.stderr.write(f"[{self._before + len(self.finished)}/{self._total}] {_one_line(item)}\n")
        if self._costs:
            self._update()

    def _weigh(self) -> None:
        """The remaining time goes by what the runs that are not done are estimated to cost."""
        done = {_name(item.run) for item in self.finished}
        left = [run for run in self._runs if _name(run) not in done]
        self._costs = dict(zip(map(_name, left), run_flops(self._bench, left), strict=True))
        self._bar.reset(self._task, total=sum(self._costs.values()))

    def _update(self) -> None:
        done = sum(self._costs.get(_name(item.run), 0.0) for item in self.finished)
        begun = sum(self._costs.get(name, 0.0) * share for name, share in self._shares.items())
        states = Counter(item.record.status == "failed" for item in self.finished)
        names = ", ".join(f"{label} seed {seed}" for label, seed in list(self._shares)[:MOST_NAMED])
        more = "" if len(self._shares) <= MOST_NAMED else " and others"
        description = f"{len(self._shares)} running ({names}{more}), {states[False]} done, {states[True]} failed"
        self._bar.update(self._task, completed=done + begun, description=description)


def _name(run: Run) -> tuple[str, int]:
    return run.entry.label, run.seed


def _one_line(item: Finished) -> str:
    record = item.record
    scores = ", ".join(f"{task} {100 * scores['main_score']:.2f}" for task, scores in record.scores.items())
    seconds = sum(record.ledger["seconds"].values())
    how = "found complete" if item.reused else f"{seconds:.0f} s"
    outcome = scores or f"{record.status}: {record.error or 'the loss is not finite'}"
    return f"{record.label} seed {record.seed}: {outcome} ({how})"
