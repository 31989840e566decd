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
    parser.add_argument(
        "--layout",
        choices=("one-column", "two-column"),
        default="one-column",
        help="of the page that the LaTeX tables are for (default: %(default)s)",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of the main table in LaTeX, in this order (default: all)",
    )


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import ReportOptions, build

    options = ReportOptions(
        margin=arguments.margin / 100,
        reference=arguments.reference,
        layout=arguments.layout,
        columns=tuple(arguments.columns),
    )
    for page in build(arguments.results, arguments.out, options):
        print_line(str(page))
    return FINE
