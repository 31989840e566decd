"""`distilbench report`: tables, figures and a page from records."""

from __future__ import annotations

import argparse

from distilbench.cli.options import add_margin, add_out, add_results
from distilbench.cli.output import FINE, print_line

HELP = "tables, figures and a page from results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    add_out(parser, "reports")
    add_margin(parser, "methods that differ by less count as equivalent")
    parser.add_argument("--reference", metavar="LABEL", help="row to draw the others against (default: the best)")


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import ReportOptions, build

    options = ReportOptions(margin=arguments.margin / 100, reference=arguments.reference)
    for page in build(arguments.results, arguments.out, options):
        print_line(str(page))
    return FINE
