"""The command line: which verbs there are, and how an error ends it. A verb's file has its options and its action."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import logging
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from distilbench.cli.output import (
    COULD_NOT_EVALUATE,
    FINE,
    INTERRUPTED,
    OUR_ERROR,
    WRONG_USE,
    LastingStream,
    VerdictCode,
    fill_closed_descriptors,
    say,
)
from distilbench.core.errors import UserError, one_of
from distilbench.core.escape import one_line
from distilbench.core.libraries import LOGGER, logging_at

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

VERBS = (
    "run",
    "report",
    "power",
    "error-rates",
    "advise",
    "check",
    "trend",
    "methods",
    "tasks",
    "studies",
    "diff",
    "export",
    "push",
    "calibrate",
    "prefetch",
    "encode",
    "conform",
    "completion",
)
EPILOG = (
    "exit codes: 0 fine, 1 a gate found a regression or a method does not conform, 2 wrong use, or a file that cannot "
    "be read or written, 3 could not evaluate, or the output could not be written, 70 an error of distilbench itself"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code. Output that cannot be written does not stop it, and is no success."""
    fill_closed_descriptors()
    if argv is None:
        # A process that ends frees everything; to look for cycles before takes as long as some imports.
        atexit.register(gc.freeze)
    # Whoever closes stderr asks for no sentences; whoever closes stdout may not know of it.
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr or io.StringIO())
    with redirect_stdout(cast("TextIO", out)), redirect_stderr(cast("TextIO", err)):
        code = _run_and_explain(argv)
        # What cannot be written must show here, and not when the interpreter ends.
        out.flush()
        if out.trouble is not None:
            say(f"distilbench: error: the output could not be written{out.trouble}")
        err.flush()
    cut_short = [stream for stream in (out, err) if stream.trouble is not None]
    stands = isinstance(code, VerdictCode) and all(stream.is_unread for stream in cut_short)
    return COULD_NOT_EVALUATE if code == FINE and cut_short and not stands else code


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    return whole_parser()[1]


def _run_and_explain(argv: Sequence[str] | None) -> int:
    try:
        return _run(argv)
    except UserError as error:
        say(f"distilbench: error: {one_line(str(error))}")
        return WRONG_USE
    except KeyboardInterrupt:
        say("distilbench: interrupted; what is complete is kept, and the same command goes on from there")
        return INTERRUPTED
    # A library that ends the program may do so with 1, which says that a gate found a regression.
    except (Exception, SystemExit) as error:
        return _unexpected(error)


def _run(argv: Sequence[str] | None) -> int:
    parser, _ = whole_parser()
    given = list(sys.argv[1:] if argv is None else argv)
    if any("\0" in text for text in given):
        raise UserError("an argument holds a NUL character, which no name and no path can; leave it out")
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    # No option before the verb takes a value.
    verb = next((text for text in given if not text.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        raise UserError(f"{one_of('verb', verb, VERBS)}; see distilbench --help")
    try:
        arguments, rest = parser.parse_known_args(given)
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
    with logging_at(_level(arguments)):
        return _act(arguments)


def _act(arguments: argparse.Namespace) -> int:
    try:
        code: int = arguments.verb(arguments)
    except UserError:
        # For whoever looks for the cause behind the sentence.
        logging.getLogger(LOGGER).info("what the error comes from", exc_info=True)
        raise
    return code


def _level(arguments: argparse.Namespace) -> int | None:
    if arguments.quiet:
        return logging.ERROR
    return logging.INFO if arguments.verbose else None


def _unexpected(error: BaseException) -> int:
    from distilbench.core.sealed import disk_trouble, refused_path

    if (refusal := disk_trouble(error)) is not None:
        say(f"distilbench: error: nothing more can be written ({one_line(refusal)}); make room and try again")
        return WRONG_USE
    if (refusal := refused_path(error)) is not None:
        say(f"distilbench: error: {one_line(refusal)}; give a path that can be used")
        return WRONG_USE
    say(traceback.format_exc())
    say("distilbench: this is an error of distilbench itself; please report it with the lines above and your command")
    return OUR_ERROR


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"distilbench: error: {one_line(message)}; see {self.prog} --help\n")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        # argparse passes over errors of writing.
        (file or sys.stdout).write(self.format_help())


class _Version(argparse.Action):
    """Prints the installed version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"distilbench {version('distilbench')}\n")
        parser.exit(FINE)


def _add_loudness(parser: argparse.ArgumentParser, **more: Any) -> None:
    """How much is told on stderr; options of each verb, which may stand before it too."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-q", "--quiet", action="store_true", help="only results and errors: no progress, no notes", **more
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="log what is found, made and how long it takes, to stderr", **more
    )


def whole_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and that of each verb."""
    parser = _Parser(
        prog="distilbench",
        description="Compare text-embedding distillation methods under equal budgets, with stated error.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    _add_loudness(parser)
    parser.set_defaults(verb=None)
    choice = parser.add_subparsers(metavar="VERB")
    verbs: dict[str, argparse.ArgumentParser] = {}
    for name in VERBS:
        module = import_module(f"distilbench.cli.{name.replace('-', '_')}")
        epilog = getattr(module, "EPILOG", None)
        verbs[name] = choice.add_parser(name, help=module.HELP, description=module.HELP, epilog=epilog)
        module.add_arguments(verbs[name])
        # A default here would undo what stands before the verb.
        _add_loudness(verbs[name], default=argparse.SUPPRESS)
        verbs[name].set_defaults(verb=module.action)
    return parser, verbs


if __name__ == "__main__":
    sys.exit(main())
