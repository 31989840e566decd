"""The command line: which verbs there are, and how an error ends it. A verb's file has its options and its action."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from distilbench.cli.output import (
    COULD_NOT_EVALUATE,
    FINE,
    INTERRUPTED,
    OUR_ERROR,
    WRONG_USE,
    accept_all_letters,
    drop_unwritable,
    say,
)
from distilbench.core.errors import UserError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

VERBS = (
    "run",
    "report",
    "power",
    "advise",
    "check",
    "trend",
    "methods",
    "tasks",
    "studies",
    "diff",
    "export",
    "calibrate",
    "prefetch",
    "encode",
    "conform",
)
EPILOG = (
    "exit codes: 0 fine, 1 a gate found a regression or a method does not conform, 2 wrong use, 3 could not evaluate, "
    "70 an error of distilbench itself"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    try:
        return _run_and_explain(argv)
    except OSError:
        # Not even stderr can be written. Python would end with 1, which says that a gate found a regression.
        drop_unwritable(sys.stderr)
        return COULD_NOT_EVALUATE


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    return _parsers()[1]


def _run_and_explain(argv: Sequence[str] | None) -> int:
    if sys.stdout is None:
        say("distilbench: error: the output could not be written, because stdout is closed")
        return COULD_NOT_EVALUATE
    try:
        accept_all_letters(sys.stdout)
        code = _run(argv)
        # What cannot be written must show here, and not when the interpreter ends.
        sys.stdout.flush()
        return code
    except UserError as error:
        say(f"distilbench: error: {' '.join(str(error).split())}")
        return WRONG_USE
    except KeyboardInterrupt:
        say("distilbench: interrupted; what is complete is kept, and the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:
        drop_unwritable(sys.stdout)
        say("distilbench: error: the output could not be written, because whoever read it has stopped")
        return COULD_NOT_EVALUATE
    except Exception as error:
        return _unexpected(error)


def _run(argv: Sequence[str] | None) -> int:
    parser, _ = _parsers()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if arguments.verb is None:
            parser.print_help()
            return FINE
        # argparse does not take positional arguments up again behind an option: overrides there are left over.
        strange = [text for text in rest if not ("=" in text and not text.startswith("-"))]
        if rest and (strange or not hasattr(arguments, "overrides")):
            parser.error(f"unrecognized arguments: {' '.join(strange or rest)}")
    except SystemExit as stopped:
        return int(stopped.code or FINE)
    if rest:
        arguments.overrides.extend(rest)
    code: int = arguments.verb(arguments)
    return code


def _unexpected(error: Exception) -> int:
    from distilbench.core.sealed import disk_trouble

    if (refusal := disk_trouble(error)) is not None:
        drop_unwritable(sys.stdout)
        say(f"distilbench: error: the output could not be written ({refusal}); make room and try again")
        return COULD_NOT_EVALUATE
    say(traceback.format_exc())
    say("distilbench: this is an error of distilbench itself; please report it with the lines above and your command")
    return OUR_ERROR


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"distilbench: error: {' '.join(message.split())}; see {self.prog} --help\n")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        # argparse passes over errors of writing.
        (file or sys.stdout).write(self.format_help())


class _Version(argparse.Action):
    """Prints the installed version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"distilbench {version('distilbench')}\n")
        parser.exit(FINE)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="distilbench",
        description="Compare text-embedding distillation methods under equal budgets, with stated error.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(verb=None)
    choice = parser.add_subparsers(metavar="VERB")
    verbs: dict[str, argparse.ArgumentParser] = {}
    for name in VERBS:
        module = import_module(f"distilbench.cli.{name}")
        epilog = getattr(module, "EPILOG", None)
        verbs[name] = choice.add_parser(name, help=module.HELP, description=module.HELP, epilog=epilog)
        module.add_arguments(verbs[name])
        verbs[name].set_defaults(verb=module.action)
    return parser, verbs


if __name__ == "__main__":
    sys.exit(main())
