"""`distilbench power`: what the design of a study can find."""

from __future__ import annotations

import argparse

from distilbench.cli.options import add_results, not_negative
from distilbench.cli.output import FINE
from distilbench.cli.terminal import add_format, print_tables

HELP = "the smallest differences a study can find, and the seeds that others would take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--delta", type=not_negative, metavar="POINTS", help="difference to find (default: as observed)"
    )
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import power

    print_tables(power(arguments.results, arguments.delta), arguments)
    return FINE
