"""`distilbench conform`: does a method keep its contract?"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from distilbench.cli.output import FINE, REGRESSED, note, print_json
from distilbench.cli.terminal import add_format, print_beside, print_rows

HELP = "check that a method keeps its contract"
EPILOG = "exit codes: 0 all checks passed, 1 some failed, 2 wrong use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="name of a method, of this package or another")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="hyperparameters, e.g. temperature=0.1")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.conformance.listing import conform_in_words

    outcomes = conform_in_words(arguments.method, arguments.overrides)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if arguments.format == "json":
        print_json([asdict(outcome) for outcome in outcomes])
        return REGRESSED if failed else FINE
    rows = [{"check": item.check, "what it asks": item.promise, "outcome": item.status} for item in outcomes]
    print_rows(rows, " ".join(["distilbench conform", arguments.method, *arguments.overrides]), arguments)
    for outcome in outcomes:
        if outcome.explanation:
            print_beside(f"{outcome.check}, {outcome.status}: {outcome.explanation}", arguments)
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    note(f"{passed} passed, {failed} failed, {len(outcomes) - passed - failed} not applicable", arguments)
    return REGRESSED if failed else FINE
