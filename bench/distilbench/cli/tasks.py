"""`distilbench tasks`: the tasks that students can be scored on."""

from __future__ import annotations

import argparse

from distilbench.cli.options import add_json
from distilbench.cli.output import FINE, print_json, print_rows

HELP = "list the tasks there are"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.evaluation.tasks.profiles import DESCRIPTIONS, PROFILES

    rows = [
        {"profile": name, "tasks": ", ".join(tasks), "what it is": DESCRIPTIONS[name]}
        for name, tasks in PROFILES.items()
    ]
    if arguments.json:
        print_json(rows)
    else:
        print_rows(rows, "Task profiles (or any STS or retrieval task of mteb by its name)")
    return FINE
