"""Options that several verbs share, each declared once, and the types of their values."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name of a shipped study, or a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="change the study, as in budget.sentences=500"
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", metavar="RESULTS", type=Path, help="folder of a study, or of several")


def add_mirror(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 and so on, mps")


def add_margin(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--margin", type=not_negative, default=0.5, metavar="POINTS", help=f"{meaning} (default: 0.5)")


def add_out(parser: argparse.ArgumentParser, default: str, meaning: str = "") -> None:
    meaning = f"{meaning} (default: {default})" if meaning else f"default: {default}"
    parser.add_argument("--out", default=default, type=Path, metavar="DIR", help=meaning)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def not_negative(text: str) -> float:
    """A finite number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def share(text: str) -> float:
    """A number between 0 and 1."""
    value = not_negative(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def share_of_a_gpu(text: str) -> float:
    """A number above 0 and at most 1."""
    value = not_negative(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value
