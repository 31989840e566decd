"""`distilbench export`: a trained student as a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.output import FINE, print_line

HELP = "write a run's model to a folder, with a card that states its scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, results/<study>/<run_id>")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a new folder, which SentenceTransformer(DIR) loads"
    )
    parser.add_argument("--onnx", action="store_true", help="add onnx/model.onnx, which runs without torch")


def action(arguments: argparse.Namespace) -> int:
    from distilbench.core.machine import cache_folder
    from distilbench.runs.export import export_run

    folder = export_run(arguments.run, arguments.out, cache=cache_folder(), onnx=arguments.onnx)
    print_line(str(folder))
    return FINE
