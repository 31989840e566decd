"""`distilbench studies`: the studies that come with distilbench."""

from __future__ import annotations

import argparse

from distilbench.cli.output import FINE
from distilbench.cli.terminal import add_format, print_rows

HELP = "list the studies that come with distilbench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_format(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.study.study_file import shipped_studies

    rows = [
        {
            "study": name,
            "what it is": path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "),
            "file": str(path),
        }
        for name, path in shipped_studies().items()
    ]
    print_rows(rows, "Studies that come with distilbench", arguments)
    return FINE
