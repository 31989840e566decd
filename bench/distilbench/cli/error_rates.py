"""`distilbench error-rates`: how often the verdicts of a study are wrong."""

from __future__ import annotations

import argparse

from distilbench.cli.options import add_margin, add_results, positive
from distilbench.cli.output import FINE
from distilbench.cli.terminal import add_format, print_tables

HELP = "how often the verdicts of a study are wrong, in studies simulated from its records"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--methods", type=positive, metavar="N", help="in a simulated study; default: as in the study")
    parser.add_argument("--seeds", type=positive, metavar="N", help="of each method; default: as in the study")
    parser.add_argument("--studies", type=positive, default=200, metavar="N", help="to simulate (default: 200)")
    parser.add_argument(
        "--variances", choices=("own", "equal"), default="own", help="between seeds: of each method, or equal for all"
    )
    parser.add_argument(
        "--resampled", action="store_true", help="draw runs from those of the study, in the place of normal ones"
    )
    add_margin(parser, "difference below which two methods are equivalent")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import ReportOptions, error_rates

    tables = error_rates(
        arguments.results,
        arguments.studies,
        methods=arguments.methods,
        seeds=arguments.seeds,
        equal_variances=arguments.variances == "equal",
        resampled=arguments.resampled,
        options=ReportOptions(margin=arguments.margin / 100),
    )
    print_tables(tables, arguments)
    return FINE
