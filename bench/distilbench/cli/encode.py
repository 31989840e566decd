"""`distilbench encode`: a model's vectors of a text, to teach with."""

from __future__ import annotations

import argparse
from pathlib import Path

from distilbench.cli.options import add_device, add_mirror
from distilbench.cli.output import FINE, note
from distilbench.core.errors import UserError

HELP = "write a model's vectors of a text, to use as teacher: {vectors: DIR}"
EPILOG = "exit codes: 0 written, 2 wrong use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="ID", help="package, folder or Hub id")
    parser.add_argument("--text", required=True, nargs="+", metavar="FILE", help="as text.source of a study")
    parser.add_argument("--column", default="text", help="column to read where files have columns (default: text)")
    parser.add_argument("--config", metavar="NAME", help="configuration of a data set of the Hub (hub:OWNER/NAME)")
    parser.add_argument("--split", metavar="NAME", help="split of a data set of the Hub (default: train)")
    parser.add_argument("--side", metavar="NAME", help="the model's prompt before each text, such as query or document")
    parser.add_argument("--prompt", metavar="TEXT", help="text before each text, instead of the model's own prompt")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the transformer (default: fp32)")
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder that is not there yet")
    add_mirror(parser)
    add_device(parser)


def action(arguments: argparse.Namespace) -> int:
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from pydantic import ValidationError

    from distilbench.core.machine import settings
    from distilbench.runs.encode import encode_text
    from distilbench.study.mistakes import explain
    from distilbench.study.sections.texts import TextSpec

    chosen = settings(out=".", mirror=arguments.mirror, device=arguments.device, writing=False)
    named = {name: getattr(arguments, name) for name in ("column", "config", "split", "side")}
    try:
        spec = TextSpec(source=arguments.text, **named)
    except ValidationError as error:
        raise UserError(f"--text: {explain(error, {'': TextSpec})}") from None
    written = encode_text(
        arguments.model, spec, Path(arguments.out), chosen, prompt=arguments.prompt, dtype=arguments.dtype
    )
    note(f"{written.texts} vectors of {written.width} numbers are in {arguments.out}", arguments)
    return FINE
