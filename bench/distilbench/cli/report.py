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
        help="of the page that LaTeX tables and figures are for (default: %(default)s)",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of the main table in LaTeX, in this order (default: all but costs)",
    )
    parser.add_argument(
        "--digits",
        type=int,
        choices=range(5),
        metavar="N",
        help="most decimals of the main table in LaTeX, 0 to 4 (default: those of the page)",
    )


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import ReportOptions, build

    options = ReportOptions(
        margin=arguments.margin / 100,
        reference=arguments.reference,
        layout=arguments.layout,
        columns=tuple(arguments.columns),
        digits=arguments.digits,
    )
    for page in build(arguments.results, arguments.out, options):
        print_line(str(page))
    return FINE
