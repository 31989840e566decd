"""`distilbench diff`: two runs, example by example."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.options import add_mirror, positive
from distilbench.cli.output import FINE, note, print_json
from distilbench.cli.terminal import add_format, print_between, print_rows

HELP = "the examples on which two runs differ most"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="RUN_A", type=Path, help="a run's folder, results/<study>/<run_id>")
    parser.add_argument("second", metavar="RUN_B", type=Path, help="another; gains are those of this run")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks, or profiles")
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="examples to show (default: 20)")
    parser.add_argument("--texts", action="store_true", help="show the texts, from the mirror or the Hub")
    add_mirror(parser)
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.evaluation.tasks.profiles import expand
    from distilbench.reporting.diff import diff, shown_examples

    wanted = list(map(str, expand(arguments.tasks))) if arguments.tasks else None
    differences = diff(arguments.first, arguments.second, wanted)
    for task, why in differences.left_out.items():
        note(f"{task} is left out: {why}", arguments)
    texts = None
    if arguments.texts:
        from distilbench.core.libraries import quiet_libraries

        quiet_libraries()
        from distilbench.evaluation.tasks.content import texts_of_tasks

        tasks = list(dict.fromkeys(differences.examples["task"]))
        texts = texts_of_tasks(differences.second, tasks, arguments.mirror)
    rows = shown_examples(differences, arguments.top, texts)
    summary = differences.summary()
    if arguments.format == "json":
        print_json({"summary": summary.to_dict("records"), "examples": rows})
        return FINE
    shown = [{str(key): value for key, value in row.items()} for row in summary.round(2).to_dict("records")]
    print_rows(shown, f"{differences.first.label} -> {differences.second.label}", arguments)
    print_between(arguments)
    print_rows(rows, "Where they differ most (gain x100: better placed or answered in the second)", arguments)
    return FINE
