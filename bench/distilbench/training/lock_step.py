"""Lock-step: trainings of one seed take turns, step by step, so that one pass of the teacher serves them all.

What is too large to be stored (attention maps, token states) the teacher gives online, batch by batch. The methods of a
seed see the same batches: one after the other they need a pass each, side by side they need one between them. Each
training is a coroutine that finds torch's generators where it left them: on a CPU it ends in the bits in which it
would have ended alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from greenlet import getcurrent, greenlet
from torch import Tensor

from distilbench.core.seeds import generator_states, set_generator_states
from distilbench.models.encoder import Encoder
from distilbench.study.budget import synchronize
from distilbench.training.online import Company, Layers, Online, all_layers, chosen, pass_online
from distilbench_methods.base import Needs

Job = TypeVar("Job")
Result = TypeVar("Result")
NOT_BEGUN = -1


@dataclass
class _Member:
    """One training, as the others see it."""

    coroutine: greenlet
    step: int = NOT_BEGUN
    random: list[Tensor] = field(default_factory=generator_states)
    spared_seconds: float = 0.0


@dataclass(frozen=True)
class _Pass:
    by: _Member
    batch: bytes
    found: Online
    seconds: float


class LockStep(Company):
    """What trainings share that take turns."""

    def __init__(self, needs: list[Needs]) -> None:
        """`needs`: of all the methods, so that each pass gives what any of them asks for."""
        self._layers = all_layers(needs)
        self._members: list[_Member] = []
        self._last: _Pass | None = None

    @property
    def count(self) -> int:
        return len(self._members)

    def run(self, jobs: Sequence[Job], work: Callable[[Job], Result]) -> Iterator[tuple[Job, Result]]:
        """Do the jobs side by side, and yield each as it is finished.

        An error that `work` lets out ends all of them, as Ctrl-C does.
        """
        self._members = [_Member(greenlet(partial(_work_on, job, work))) for job in jobs]
        outside = generator_states()
        try:
            while self._members:
                # Whichever is finished comes back here, be it another than was switched to.
                finished = cast(tuple[Job, Result], _switch_to(self._furthest_behind()))
                self._members = [one for one in self._members if not one.coroutine.dead]
                set_generator_states(outside)
                yield finished
        finally:
            for member in self._members:
                if not member.coroutine.dead:
                    member.coroutine.throw()
            self._members, self._last = [], None
            set_generator_states(outside)

    def turn(self, step: int) -> None:
        member = self._own()
        member.step, member.random = step, generator_states()
        first = self._furthest_behind()
        if first is not member:
            _switch_to(first)

    def teacher_pass(self, teacher: Encoder, ids_BT: Tensor, mask_BT: Tensor, layers: Layers, batch: bytes) -> Online:
        member = self._own()
        if self._last is None or self._last.batch != batch:
            self._last = None
            start = time.perf_counter()
            found = pass_online(teacher, ids_BT, mask_BT, self._layers)
            synchronize()
            self._last = _Pass(member, batch, found, time.perf_counter() - start)
        elif self._last.by is not member:
            member.spared_seconds += self._last.seconds
        return chosen(self._last.found, self._layers, layers)

    def take_spared_seconds(self) -> float:
        member = self._own()
        spared, member.spared_seconds = member.spared_seconds, 0.0
        return spared

    def _own(self) -> _Member:
        current = getcurrent()
        return next(member for member in self._members if member.coroutine is current)

    def _furthest_behind(self) -> _Member:
        """The first of those with the lowest step."""
        return min((one for one in self._members if not one.coroutine.dead), key=lambda member: member.step)


def _switch_to(member: _Member) -> object:
    """Go on where a training left off; returns when this one is switched to, or one that it started is finished."""
    set_generator_states(member.random)
    return member.coroutine.switch()


def _work_on(job: Job, work: Callable[[Job], Result]) -> tuple[Job, Result]:
    return job, work(job)
