"""Figures that are drawn from records alone, by a process of its own while this one resamples examples.

It reads the records anew: nothing has to be handed over but where they are. Whatever it does not draw is drawn with the
other figures, and looks the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.design import read_design
from bench.record import read_study
from bench.report.frame import make_study, read_curves
from bench.report.verdicts import Inference

WORTHWHILE = 20
"""Records from which on a second process, which takes seconds to start, is expected to pay."""
CALL = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from bench.report.apart import main; main()"


class Apart:
    """The other process, or nobody, and the folder that it draws into."""

    def __init__(self, process: subprocess.Popen[bytes] | None, folder: Path) -> None:
        self._process, self._folder = process, folder

    def collect(self, folder: Path) -> set[str]:
        """Wait for the figures, and move them to `folder`; the names of those that are there."""
        if self._process is None or self._process.wait() != 0:
            return set()
        files = list(self._folder.iterdir())
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        return {file.stem for file in files}


@contextmanager
def drawing_apart(records: int, folder: Path, margin: float) -> Iterator[Apart]:
    """Begin to draw what so many records of a study's folder show, if it is worth it; ends the process if need be."""
    with tempfile.TemporaryDirectory() as place:
        if records < WORTHWHILE or (os.cpu_count() or 1) < 2 or not sys.executable:
            yield Apart(None, Path(place))
            return
        # Not by multiprocessing, which would run the main module of whoever calls this again.
        command = [sys.executable, "-c", CALL, json.dumps(sys.path), str(folder), place, repr(margin)]
        silent = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)
        try:
            yield Apart(process, Path(place))
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Draw into a folder; arguments: search path of modules, study's folder, folder of figures, margin."""
    from bench.report.drawn import Drawn
    from bench.report.figures import OF_RECORDS, draw_all

    folder, out, margin = Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    study = make_study(folder.name, read_study(folder), margin)
    nothing = Inference(study, study.scores[[]], {})
    given = Drawn(study, read_curves(study, folder), nothing, read_design(folder))
    draw_all(given, out, OF_RECORDS)
