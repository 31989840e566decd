"""How long the report of a study takes that has as many methods as asked: copies of those of a real one.

    python -m tests.reliability.report_time results/minilm-50k --methods 12 --times 3

Each report is made by a process of its own, whose start counts. Prints wall-clock and CPU seconds of each.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.artefact import write_sealed
from bench.identity import key_of
from bench.record import RECORD_FILE, Record, dump_json, read_study, to_dict


def grown(source: Path, target: Path, methods: int) -> int:
    """Write a study with so many methods to `target`; the number of its runs."""
    records = read_study(source)
    labels = sorted({record.label for record in records if record.role == "method"})
    kept = set(labels[:methods])
    made = [record for record in records if record.role != "method" or record.label in kept]
    for number in range(max(0, methods - len(labels))):
        label = labels[number % len(labels)]
        for record in (record for record in records if record.label == label):
            run_id = key_of(run=record.run_id, copy=number)
            made.append(replace(record, run_id=run_id, label=f"{label}-{number}", study=target.name))
            _copy(source / record.run_id, target / run_id, made[-1])
    for record in made:
        if not (target / record.run_id).exists():
            _copy(source / record.run_id, target / record.run_id, replace(record, study=target.name))
    return len(made)


def _copy(source: Path, target: Path, record: Record) -> None:
    def write(folder: Path) -> None:
        for file in source.glob("*.parquet"):
            shutil.copy(file, folder)
        dump_json(to_dict(record), folder / RECORD_FILE)

    write_sealed(target, write)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--methods", type=int, default=12)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = Path(place, "grown")
        sys.stdout.write(f"{grown(arguments.results, study, arguments.methods)} runs\n")
        command = [sys.executable, "-m", "bench.cli", "report", str(study), "--out", str(Path(place, "reports"))]
        for _ in range(arguments.times):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            sys.stdout.write(f"{time.perf_counter() - start:.1f} s, {cpu:.1f} s of CPU\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
