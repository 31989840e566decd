"""Where the tasks of a cluster write how far they are. It imports nothing, so that its process starts quickly."""

from __future__ import annotations


class Board:
    """Shares of the runs that are under way, by the number of their task."""

    def __init__(self) -> None:
        self._shares: dict[int, float] = {}

    def report(self, task: int, share: float) -> None:
        """Write down how far a task is, from 0 to 1."""
        self._shares[task] = share

    def read(self) -> dict[int, float]:
        """The latest share of each task."""
        return self._shares
