"""Figures that another process draws: from records alone, while this one resamples examples; then the rest with it.

It reads the records anew, and is handed what was found by resampling. Whatever it does not draw is drawn here, and
looks the same.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench.analysis.frame import make_study, read_curves
from distilbench.analysis.verdicts import Inference
from distilbench.records.design import read_design
from distilbench.records.record import read_study

if TYPE_CHECKING:
    from distilbench.report.figures.drawn import Drawn

WORTHWHILE = 20
"""Records from which on a second process, which takes seconds to start, is expected to pay."""
CALL = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from distilbench.report.apart import main; main()"
GIVEN, CLAIMS, FIGURES_FOLDER = "given.pickle", "claims", "figures"


class Apart:
    """The other process, or nobody, and the folder that it works in."""

    def __init__(self, process: subprocess.Popen[bytes] | None, folder: Path) -> None:
        self._process, self._folder = process, folder

    def draw(self, given: Drawn, out: Path) -> set[str]:
        """Write all figures that there is data for into the folder `out`, with the other process. Their names."""
        from distilbench.report.figures.all_figures import FIGURES, OF_RECORDS, draw_all

        if self._process is None:
            return draw_all(given, out, FIGURES)
        (self._folder / GIVEN).write_bytes(pickle.dumps(given))
        assert self._process.stdin is not None
        self._process.stdin.close()
        drawn = draw_all(given, out, _claimed(self._folder, [name for name in FIGURES if name not in OF_RECORDS]))
        if self._process.wait() != 0:
            return drawn | draw_all(given, out, [name for name in FIGURES if name not in drawn])
        files = list((self._folder / FIGURES_FOLDER).iterdir())
        for file in files:
            (out / file.name).write_bytes(file.read_bytes())
        return drawn | {file.stem for file in files}


@contextmanager
def drawing_apart(records: int, folder: Path, margin: float) -> Iterator[Apart]:
    """Begin to draw what so many records of a study's folder show, if it is worth it; ends the process if need be."""
    with tempfile.TemporaryDirectory() as place:
        if records < WORTHWHILE or (os.cpu_count() or 1) < 2 or not sys.executable:
            yield Apart(None, Path(place))
            return
        for name in (CLAIMS, FIGURES_FOLDER):
            (Path(place) / name).mkdir()
        # Not by multiprocessing, which would run the main module of whoever calls this again.
        command = [sys.executable, "-c", CALL, json.dumps(sys.path), str(folder), place, repr(margin)]
        silent = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=silent, stderr=silent)
        try:
            yield Apart(process, Path(place))
        finally:
            process.kill()
            process.communicate()


def _claimed(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Those of some figures that the other process has not taken; they are then taken."""
    for name in names:
        try:
            (folder / CLAIMS / name).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield name


def main() -> None:
    """Draw into a folder; arguments: search path of modules, study's folder, folder to work in, margin.

    What was found by resampling is there when the standard input ends.
    """
    from distilbench.report.figures.all_figures import FIGURES, OF_RECORDS, draw_all
    from distilbench.report.figures.drawn import Drawn

    folder, place, margin = Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    study = make_study(folder.name, read_study(folder), margin)
    nothing = Inference(study, study.scores[[]], {})
    given = Drawn(study, read_curves(study, folder), nothing, read_design(folder))
    draw_all(given, place / FIGURES_FOLDER, OF_RECORDS)
    sys.stdin.read()
    whole: Drawn = pickle.loads((place / GIVEN).read_bytes())
    left = [name for name in reversed(FIGURES) if name not in OF_RECORDS]
    draw_all(whole, place / FIGURES_FOLDER, _claimed(place, left))
