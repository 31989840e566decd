"""`distilbench check`: the gate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench.cli.options import add_device, add_margin, add_mirror, share
from distilbench.cli.output import (
    COULD_NOT_EVALUATE,
    FINE,
    REGRESSED,
    VerdictCode,
    note,
    print_json,
    print_line,
    say,
    write_at_once,
)
from distilbench.cli.terminal import add_format, print_tables
from distilbench.core.escape import one_line

if TYPE_CHECKING:
    from distilbench.gate.check import CheckResult
    from distilbench.gate.history import Blessing


HELP = "compare results with a blessed baseline"
EPILOG = (
    "exit codes: 0 pass or improved, 1 regressed, 2 wrong use, 3 inconclusive, not comparable or not evaluated, or a "
    "pass of which something could not be written"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("candidate", metavar="CANDIDATE", type=Path, help="folder of a study, a run or a model")
    parser.add_argument("--baseline", required=True, type=Path, metavar="FILE", help="e.g. results/baselines/ci.json")
    parser.add_argument("--bless", action="store_true", help="write the candidate as the baseline instead")
    parser.add_argument("--accept-regression", metavar="WHY", help="bless a candidate that is shown to be worse")
    add_margin(parser, "drop to tolerate")
    parser.add_argument("--alpha", type=share, default=0.05, metavar="A", help="error of each claim (default: 0.05)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="only these: tasks, profiles, files or folders of your own",
    )
    parser.add_argument("--study", metavar="STUDY", help="only the tasks of a study")
    parser.add_argument(
        "--slices",
        type=Path,
        metavar="FILE",
        help="examples with lines of their own: CSV or JSONL of task, example, slice",
    )
    parser.add_argument("--row", metavar="LABEL", help="the baseline's row that a model folder stands for")
    parser.add_argument("--changed", action="store_true", help="the model differs on purpose: let its scores decide")
    parser.add_argument("--drift", action="store_true", help="of a results folder, look for drift in the models, too")
    add_mirror(parser)
    add_device(parser)
    parser.add_argument(
        "--confirm",
        type=Path,
        metavar="FOLDER",
        help="same code, other seeds: a drop counts if it shows here, too",
    )
    parser.add_argument("--plan", action="store_true", help="say what to add so that a drop of the margin is found")
    parser.add_argument("--history", type=Path, metavar="FILE", help="add the outcome to a file of JSON lines")
    add_format(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, a test case for each line")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write Markdown, for the page of a CI job")
    parser.add_argument("--github", action="store_true", help="annotate a job of GitHub Actions, on stderr")


def action(arguments: argparse.Namespace) -> int:
    from distilbench.gate.output import as_table, headline, to_github, to_text
    from distilbench.gate.run import CheckOptions, bless_candidate, check_candidate
    from distilbench.gate.tasks import given_tasks

    options = CheckOptions(
        margin=arguments.margin / 100,
        alpha=arguments.alpha,
        tasks=given_tasks(arguments.tasks, arguments.study),
        row=arguments.row,
        changed=arguments.changed,
        drift=arguments.drift,
        mirror=arguments.mirror,
        device=arguments.device,
        confirm=arguments.confirm,
        accept_regression=arguments.accept_regression,
        slices=arguments.slices,
    )
    if arguments.bless:
        return _bless(bless_candidate(arguments.candidate, arguments.baseline, options), arguments)
    outcome = check_candidate(arguments.candidate, arguments.baseline, options)
    if arguments.plan:
        from distilbench.gate.plan import plan

        outcome = replace(outcome, notes=[*outcome.notes, *plan(outcome.lines, options.margin, options.alpha)])
    are_written = [_is_written(option, path, write) for option, path, write in _files(outcome, arguments)]
    code = outcome.exit_code if all(are_written) else outcome.exit_code or COULD_NOT_EVALUATE
    if arguments.format == "json":
        print_json({"headline": headline(outcome), **outcome.as_dict(), "exit_code": code})
    elif arguments.format == "text":
        sys.stdout.write(to_text(outcome))
    else:
        print_tables([as_table(outcome)], arguments)
    if arguments.github:
        for command in to_github(outcome):
            say(command)
    note(f"distilbench check: {outcome.verdict}", arguments)
    return VerdictCode(code) if code == outcome.exit_code else code


def _bless(blessing: Blessing, arguments: argparse.Namespace) -> int:
    for change in blessing.changes:
        print_line(change)
    if blessing.refused is not None:
        say(
            f"distilbench check: {blessing.refused}; {arguments.baseline} is left as it was. Mend the candidate, or "
            'say why it may be worse with --accept-regression "..."'
        )
        return VerdictCode(REGRESSED)
    for line in blessing.notes:
        note(line, arguments)
    note(f"{arguments.baseline} and its tables are written; review and commit them", arguments)
    return FINE


def _files(outcome: CheckResult, arguments: argparse.Namespace) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    """The files that were asked for: option, path, and what writes it."""
    from distilbench.gate.history import append
    from distilbench.gate.output import as_table, to_junit
    from distilbench.reporting.formats.render import to_markdown

    writers: dict[str, Callable[[Path], object]] = {
        "history": lambda path: append(path, outcome, str(arguments.candidate), str(arguments.baseline)),
        "junit": lambda path: write_at_once(path, to_junit(outcome)),
        "summary": lambda path: write_at_once(path, to_markdown(as_table(outcome))),
    }
    for option, write in writers.items():
        if (path := getattr(arguments, option)) is not None:
            yield f"--{option}", path, write


def _is_written(option: str, path: Path, write: Callable[[Path], object]) -> bool:
    try:
        write(path)
    except OSError as error:
        say(f"distilbench: error: {option}: {one_line(str(path))} cannot be written ({error.strerror or error})")
        return False
    return True
