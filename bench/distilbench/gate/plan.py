"""What to add so that a wanted margin can be shown: seeds, examples or tasks. Pure functions on the gate's lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from distilbench.analysis import stats
from distilbench.gate.check import CheckLine
from distilbench.gate.judging.power import margin_needed

MOST_SEEDS, MOST_TIMES = 200, 1000.0


def with_runs(line: CheckLine, count: int) -> stats.Estimate:
    """The difference's error if each side had `count` seeds; as it is where seeds have no part in it."""
    estimate = line.estimate
    assert estimate is not None
    if line.runs < 2 or not estimate.seed_variance:
        return estimate
    times = (count - 1) / (line.runs - 1)
    return replace(
        estimate,
        seeds=round((estimate.seeds - 1) * times) + 1,
        seed_variance=estimate.seed_variance * line.runs / count,
        seed_freedom=estimate.freedom * times,
    )


def seeds_needed(line: CheckLine, margin: float, alpha: float) -> int | None:
    """Seeds of each side with which the margin is enough, as `margin_needed` says; None when no number does."""
    if line.estimate is None or line.runs < 2 or not line.estimate.seed_variance:
        return None

    def enough(count: int) -> bool:
        return margin_needed(with_runs(line, count), line.critical, alpha) <= margin

    return next(filter(enough, range(2, MOST_SEEDS + 1)), None)


def times_examples(line: CheckLine, margin: float, alpha: float) -> float | None:
    """How many times the examples it takes, seeds being as they are; None when no number of them is enough.

    As many times the tasks of an average do the same, if they are as large and as hard.
    """
    estimate = line.estimate
    if estimate is None:
        return None

    def enough(times: float) -> bool:
        more = replace(estimate, example_variance=estimate.example_variance / times)
        return margin_needed(more, line.critical, alpha) <= margin

    return _smallest(enough)


def _smallest(enough: Callable[[float], bool]) -> float | None:
    if not enough(MOST_TIMES):
        return None
    low, high = 1.0, MOST_TIMES
    if enough(low):
        return low
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def plan(lines: list[CheckLine], margin: float, alpha: float) -> list[str]:
    """A sentence for each line that decides."""
    points = f"{margin * 100:g} points"
    head = (
        f"To pass within {points} when nothing has changed, and to find a drop of {points}, each with probability 0.8:"
    )
    return [head, *(_sentence(line, margin, alpha) for line in lines if line.decides and line.difference is not None)]


def _sentence(line: CheckLine, margin: float, alpha: float) -> str:
    where = f"{line.label} on {line.column}"
    if line.reason:
        return f"{where}: {line.reason}."
    if line.estimate is None or line.estimate.error == 0:
        return f"{where}: both sides agree to the last digit; plan with results of fresh seeds."
    now = margin_needed(line.estimate, line.critical, alpha)
    if now <= margin:
        return f"{where}: enough as it is, for {now * 100:.2f} points."
    ways = []
    if (seeds := seeds_needed(line, margin, alpha)) is not None:
        ways.append(f"{seeds} seeds on each side instead of {line.runs}")
    if (times := times_examples(line, margin, alpha)) is not None:
        ways.append(f"{times:.1f} times the examples, or as many tasks more of the kind")
    advice = "; or ".join(ways) or "neither seeds nor examples alone are enough: add both"
    return f"{where}: now for {now * 100:.2f} points; {advice}."
