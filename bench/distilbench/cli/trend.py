"""`distilbench trend`: the history of the gate."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.options import add_out
from distilbench.cli.output import FINE, print_line

HELP = "draw the gate's scores over time, with change points"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("history", metavar="FILE", type=Path, help="written by distilbench check --history")
    add_out(parser, "reports")


def action(arguments: argparse.Namespace) -> int:
    from distilbench.gate.trend import draw

    for line in draw(arguments.history, arguments.out):
        print_line(line)
    return FINE
