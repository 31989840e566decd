"""`distilbench tasks`: the tasks that students can be scored on."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from distilbench.cli.output import FINE, note, print_json
from distilbench.cli.terminal import add_format, print_rows

HELP = "list profiles of tasks, or search mteb's catalogue"
BENCHMARKS = "Benchmarks of mteb (a study lists one in quotation marks)"
MOST_NAMED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--find", metavar="WORDS", help="search mteb's catalogue: names, types and descriptions")
    parser.add_argument(
        "--benchmark",
        nargs="?",
        const="",
        metavar="NAME",
        help="list mteb's benchmarks, or the tasks of the one named",
    )
    parser.add_argument("--language", metavar="CODE", help="search it for tasks, or subsets, in a language, as in deu")
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    if arguments.find is not None or arguments.language is not None:
        return _search(arguments)
    if arguments.benchmark is not None:
        return _benchmarks(arguments)
    from distilbench.evaluation.tasks.profiles import DESCRIPTIONS, PROFILES

    rows = [
        {"profile": name, "tasks": ", ".join(tasks), "what it is": DESCRIPTIONS[name]}
        for name, tasks in PROFILES.items()
    ]
    print_rows(rows, "Task profiles (or any text task of mteb by its name: --find WORDS)", arguments)
    return FINE


def _benchmarks(arguments: argparse.Namespace) -> int:
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.evaluation.task_types.benchmarks import benchmark, benchmarks
    from distilbench.evaluation.tasks.profiles import SCORED

    if arguments.benchmark:
        found = benchmark(arguments.benchmark)
        rows = [{"task": name, "scored": "yes"} for name in found.tasks]
        rows += [{"task": name, "scored": f"no: {why}"} for name, why in found.left_out.items()]
    else:
        every = [benchmark(name) for name in benchmarks()]
        rows = [{"benchmark": found.name, "tasks": str(found.size), "scored": str(len(found.tasks))} for found in every]
    print_rows(rows, arguments.benchmark or BENCHMARKS, arguments)
    if any(row["scored"] != row.get("tasks", "yes") for row in rows):
        scored = f"{SCORED} behind a benchmark's name (in quotation marks) leaves out its tasks that are not scored"
        note(scored, arguments)
    return FINE


def _search(arguments: argparse.Namespace) -> int:
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.evaluation.tasks.catalogue import find_tasks

    found = find_tasks(arguments.find or "", arguments.language)
    if arguments.format == "json":
        print_json([asdict(task) for task in found])
        return FINE
    rows = [
        {
            "task": task.name,
            "type": task.type,
            "languages": _some(task.languages),
            "subsets": _some(task.subsets),
            "metric": task.metric,
        }
        for task in found
    ]
    if rows:
        print_rows(rows, "Tasks of mteb", arguments)
    note(f"{len(found)} task{'s' if len(found) != 1 else ''}; --json has all that is known of them", arguments)
    return FINE


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
