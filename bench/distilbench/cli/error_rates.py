"""`distilbench error-rates`: how often the verdicts of a study are wrong."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from distilbench.cli.options import add_margin, add_results, positive
from distilbench.cli.output import FINE
from distilbench.cli.terminal import add_format, print_tables

if TYPE_CHECKING:
    from distilbench.reporting.formats.render import Table

HELP = "how often verdicts are wrong, in studies or checks simulated from the records of a study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--methods", type=positive, metavar="N", help="in a simulated study (default: as in the study)")
    parser.add_argument("--seeds", type=positive, metavar="N", help="of each method (default: as in the study)")
    parser.add_argument(
        "--studies", type=positive, default=200, metavar="N", help="studies or checks to simulate (default: 200)"
    )
    parser.add_argument(
        "--variances",
        choices=("own", "equal"),
        default="own",
        help="between seeds: each method's own, or equal",
    )
    parser.add_argument(
        "--resampled", action="store_true", help="draw runs from those of the study, not from a normal distribution"
    )
    parser.add_argument(
        "--gate", action="store_true", help="simulate checks of distilbench check at 1, 2, 3 and 5 seeds, not studies"
    )
    add_margin(parser, "difference below which two methods are equivalent")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.reporting import ReportOptions, error_rates

    if arguments.gate:
        print_tables(_of_the_gate(arguments), arguments)
        return FINE
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


def _of_the_gate(arguments: argparse.Namespace) -> list[Table]:
    from distilbench.core.errors import UserError
    from distilbench.gate.judging.error_rates import error_rates

    if arguments.methods or arguments.seeds or arguments.resampled or arguments.variances != "own":
        raise UserError("--gate simulates checks of its own: leave out --methods, --seeds, --variances and --resampled")
    return error_rates(arguments.results, arguments.studies, arguments.margin / 100)
