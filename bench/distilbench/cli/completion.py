"""`distilbench completion`: a script that teaches a shell the verbs, options, studies and methods."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from distilbench.cli.output import FINE

HELP = "print a script that lets the tab key complete verbs, options, studies and methods"
EPILOG = 'bash: eval "$(distilbench completion bash)"; zsh: the same; fish: distilbench completion fish | source'
SHELLS = ("bash", "zsh", "fish")
ONLY_FOLDERS = "DIR"
OWN_TEXTS = {"KEY=VALUE", "ADDRESS", "ID", "WHY"}
"""Metavars of what is no path and in no list."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="which shell the script is for")


def action(arguments: argparse.Namespace) -> int:
    import shtab

    from distilbench.cli.app import whole_parser

    parser, verbs = whole_parser()
    for verb in verbs.values():
        for option in verb._actions:
            if option.choices is None and (complete := _values_of(option)) is not None:
                option.complete = complete  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(parser, arguments.shell))
    return FINE


def _values_of(option: argparse.Action) -> dict[str, Any] | None:
    """What the shell offers for an argument, as shtab has it; None for free text."""
    import shtab

    from distilbench.study.study_file import shipped_studies
    from distilbench_methods import registry

    if option.metavar == "STUDY":
        return _names("studies", shipped_studies(), "*.yaml", "*.yml")
    if option.dest in ("name", "method") and not option.option_strings:
        return _names("methods", registry())
    if option.metavar == ONLY_FOLDERS:
        return dict(shtab.DIRECTORY)
    is_path = option.metavar in ("FILE", "FOLDER") or not option.option_strings
    return dict(shtab.FILE) if is_path and option.metavar not in OWN_TEXTS else None


def _names(what: str, names: Iterable[str], *patterns: str) -> dict[str, Any]:
    """These names, and files that match a pattern."""
    words, function = " ".join(sorted(names)), f"_distilbench_{what}"
    globs = " ".join(patterns)
    of_bash = "".join(f'  compgen -f -X "!{pattern}" -- "$1"\n' for pattern in patterns)
    folders = '  compgen -d -- "$1"\n' if patterns else ""
    of_zsh = f"  _files -g '({'|'.join(patterns)})'\n" if patterns else ""
    of_fish = f"; __fish_complete_suffix {globs.split()[0].lstrip('*')}" if patterns else ""
    return {
        "bash": function,
        "zsh": function,
        "fish": f"(string split ' ' '{words}'{of_fish})",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{words}" -- "$1"\n{of_bash}{folders}}}\n',
            "zsh": f"{function}() {{\n  compadd -- {words}\n{of_zsh}}}\n",
        },
    }
