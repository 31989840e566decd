"""`distilbench advise`: which method to take, from records."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.options import not_negative
from distilbench.cli.output import COULD_NOT_EVALUATE, FINE, say
from distilbench.cli.terminal import add_format, print_tables

HELP = "which method to take according to records, how sure that is, and what to run next"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", required=True, type=Path, metavar="DIR", help="folder of a study, or of several")
    parser.add_argument("--budget", metavar="CURRENCY=AMOUNT", help="what may be spent, e.g. sentences=50000")
    parser.add_argument("--size", metavar="PARAMETERS", help="largest student, head included, e.g. 12M")
    parser.add_argument(
        "--latency",
        type=not_negative,
        metavar="MS",
        help="longest time for one query, as measured in the study",
    )
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting.advise import advise, situation

    wanted = situation(budget=arguments.budget, size=arguments.size, latency=arguments.latency)
    tables, reasons = advise(arguments.results, wanted)
    print_tables(tables, arguments)
    for reason in reasons:
        say(f"nothing can be said from {reason}")
    return FINE if tables else COULD_NOT_EVALUATE
