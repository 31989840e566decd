"""`distilbench prefetch`: all that a study reads, in one folder."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from distilbench.cli.options import add_study
from distilbench.cli.output import FINE
from distilbench.cli.terminal import add_format, print_rows
from distilbench.core.errors import UserError

HELP = "copy all that a study reads into a folder, to run it offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    parser.add_argument("--out", metavar="DIR", help="the mirror to fill (default: DISTILBENCH_MIRROR)")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.study.study_file import load_study

    study = load_study(arguments.study, overrides=arguments.overrides)
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.runs.prefetch import mirror_to_fill, prefetch

    mirror = mirror_to_fill(arguments.out)
    parts = list(prefetch(study, mirror))
    rows = [asdict(part) for part in parts]
    print_rows(rows, f"What {study.name} reads, in {mirror}", arguments)
    if missing := [f"{part.kind} {part.name}" for part in parts if part.state == "missing"]:
        raise UserError(
            f"{len(missing)} of {len(parts)} parts cannot be had ({', '.join(missing)}; the reasons are above); run "
            "prefetch where the Hub can be reached, or put them into the mirror"
        )
    return FINE
