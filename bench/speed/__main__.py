"""`python bench/speed`, from a clone: this beside sentence-transformers and mteb, on the machine at hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # A folder that is run is put on the path itself, not as a package.
    sys.path[0] = str(Path(__file__).parents[1])

from distilbench.cli.output import FINE, WRONG_USE, say
from distilbench.cli.terminal import print_rows
from distilbench.core.errors import UserError
from distilbench.core.libraries import quiet_libraries
from speed.arguments import EPILOG, add_arguments
from speed.run import speed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the races that are asked for, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python bench/speed", description=__doc__, epilog=EPILOG)
    add_arguments(parser)
    parser.set_defaults(format="text", wide=False, quiet=False)
    arguments = parser.parse_args(argv)
    quiet_libraries()
    try:
        rows = speed(arguments, lambda text: say(f"speed: {text}"))
    except UserError as error:
        say(f"speed: error: {error}")
        return WRONG_USE
    shown = [
        {"work": row.work, "against": row.against, "found": row.found, "at least": row.wanted, "note": row.note}
        for row in rows
    ]
    print_rows(shown, "How many times as fast: median of the rounds (range), by the wall clock", arguments)
    return FINE


if __name__ == "__main__":
    sys.exit(main())
