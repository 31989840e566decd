"""`distilbench export`: a trained student as a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.output import FINE, note, print_line
from distilbench.core.errors import UserError

HELP = "write a run's model to a folder, with a card that states its scores, or its scores for mteb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, results/<study>/<run_id>")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a new folder, which SentenceTransformer(DIR) loads"
    )
    parser.add_argument(
        "--mteb", action="store_true", help="write the scores instead, as mteb keeps results: mteb.ResultCache(DIR)"
    )
    parser.add_argument("--onnx", action="store_true", help="add onnx/model.onnx, which runs without torch")


def action(arguments: argparse.Namespace) -> int:
    if arguments.mteb:
        return _results(arguments)
    from distilbench.core.machine import cache_folder
    from distilbench.runs.export import export_run

    folder = export_run(arguments.run, arguments.out, cache=cache_folder(), onnx=arguments.onnx)
    print_line(str(folder))
    return FINE


def _results(arguments: argparse.Namespace) -> int:
    if arguments.onnx:
        raise UserError("--mteb writes scores and --onnx a model; give one of them")
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.evaluation.mteb_results import export_mteb

    folder, left_out = export_mteb(arguments.run, arguments.out)
    if left_out:
        note(f"left out, as mteb does not know them: {', '.join(left_out)}", arguments)
    print_line(str(folder))
    return FINE
