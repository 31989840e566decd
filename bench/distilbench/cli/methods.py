"""`distilbench methods`: the methods that can be compared."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from distilbench.cli.output import FINE, print_json
from distilbench.cli.terminal import add_format, print_beside, print_rows

if TYPE_CHECKING:
    from distilbench.study.method_catalogue import MethodDescription


HELP = "list the methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="show this method's hyperparameters and source")
    parser.add_argument("--markdown", action="store_true", help="print the page on all methods, methods/README.md")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        from distilbench.conformance.method_table import markdown

        sys.stdout.write(markdown())
        return FINE
    from distilbench.study.method_catalogue import describe_method, describe_methods

    if arguments.name is not None:
        _print_method(describe_method(arguments.name), arguments)
        return FINE
    entries = describe_methods()
    rows = [{"method": entry.name, "what it does": entry.summary} for entry in entries]
    values = [asdict(entry) for entry in entries]
    print_rows(rows, "Methods (details: distilbench methods NAME)", arguments, values)
    return FINE


def _print_method(entry: MethodDescription, arguments: argparse.Namespace) -> None:
    if arguments.format == "json":
        print_json([asdict(entry)])
        return
    print_beside(f"{entry.name}: {entry.summary}\n\nSource: {entry.source}", arguments)
    if entry.unverified:
        print_beside(f"Unverified: {entry.unverified}", arguments)
    if entry.hyperparameters:
        print_rows([asdict(item) for item in entry.hyperparameters], "Hyperparameters", arguments)
