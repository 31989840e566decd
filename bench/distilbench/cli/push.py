"""`distilbench push`: a run's model and results on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.output import COULD_NOT_EVALUATE, FINE, print_line, say
from distilbench.core.escape import one_line

HELP = "upload a run's model, with its card, and its results to the Hugging Face Hub"
EPILOG = "exit codes: 0 uploaded, 2 wrong use, 3 the Hub cannot be reached, or refuses the token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, results/<study>/<run_id>")
    parser.add_argument("--repo", required=True, metavar="ID", help="OWNER/NAME on the Hub, made if it is not there")
    parser.add_argument("--public", action="store_true", help="for everybody to see (default: a private repository)")


def action(arguments: argparse.Namespace) -> int:
    from distilbench.core.machine import cache_folder
    from distilbench.runs.sharing.push import NotPushedError, push_run

    try:
        address = push_run(arguments.run, arguments.repo, cache_folder(), public=arguments.public)
    except NotPushedError as error:
        say(f"distilbench: error: {one_line(str(error))}")
        return COULD_NOT_EVALUATE
    print_line(address)
    return FINE
