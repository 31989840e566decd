"""`distilbench run`: train, score and record what is missing of a study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench.cli.options import (
    add_device,
    add_mirror,
    add_out,
    add_study,
    not_negative,
    positive,
    share_of_a_gpu,
)
from distilbench.cli.output import COULD_NOT_EVALUATE, FINE, note, print_json, say
from distilbench.cli.terminal import add_format, print_beside, print_between, print_rows, print_tables

if TYPE_CHECKING:
    from distilbench.records.record import Record
    from distilbench.runs.plan import Plan


LEAST_MINUTES, MOST_MINUTES = 1.5, 90
"""A shorter time is said in seconds, a longer one in hours."""
HELP = "run a study: train, evaluate, record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    add_mirror(parser)
    add_device(parser)
    add_out(parser, "results", "records go to DIR/<study>")
    parser.add_argument(
        "--budget",
        metavar="CURRENCY=AMOUNT",
        help="steps, sentences, tokens, flops or seconds instead of the study's own budget; a study of its own, with "
        "records under DIR/<study>-<currency>",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="smoke run: at most N sentences, pairs and queries")
    parser.add_argument(
        "--checkpoint-seconds",
        type=not_negative,
        default=15.0,
        metavar="S",
        help="least time between checkpoints of a training (default: 15; 0: after every step)",
    )
    parser.add_argument(
        "--log",
        type=_names,
        default=(),
        metavar="TRACKER[,...]",
        help="show curves, ledgers and scores in tensorboard, wandb, mlflow or trackio too, as they come",
    )
    parser.add_argument(
        "--log-dir", type=Path, default=Path("logs"), metavar="DIR", help="where trackers keep files (default: logs)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and train nothing")
    add_format(parser)
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, or auto (default: RAY_ADDRESS)")
    parser.add_argument("--jobs", type=positive, metavar="N", help="runs at a time, each in a process of its own")
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads of each run (default: OMP_NUM_THREADS, else the cores divided by the jobs)",
    )
    parser.add_argument(
        "--gpu-share",
        type=share_of_a_gpu,
        default=1.0,
        metavar="SHARE",
        help="most of a GPU's memory that a run may take; several runs share a GPU if this is less than 1 (default: 1)",
    )


def _names(text: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def action(arguments: argparse.Namespace) -> int:
    # What is wrong with the study is said before torch, which takes seconds, is there.
    from distilbench.study.study_file import load_study

    study = load_study(arguments.study, overrides=arguments.overrides, limit=arguments.limit, budget=arguments.budget)
    from distilbench.core.libraries import quiet_libraries

    quiet_libraries()
    from distilbench.core.machine import settings
    from distilbench.runs.engines import EngineOptions
    from distilbench.runs.progress import ProgressBar, Watch

    chosen = settings(
        out=arguments.out,
        mirror=arguments.mirror,
        device=arguments.device,
        checkpoint_seconds=arguments.checkpoint_seconds,
        trackers=arguments.log,
        log_folder=arguments.log_dir,
        writing=not arguments.dry_run,
    )
    options = EngineOptions(
        jobs=arguments.jobs,
        threads=arguments.threads,
        gpu_share=arguments.gpu_share,
        engine=arguments.engine,
        address=arguments.address,
    )
    watch = Watch() if arguments.quiet else ProgressBar(study.name)
    if arguments.dry_run:
        from distilbench.runs.plan import plan_study, planned_tuning

        with _others_beside(arguments.engine):
            plans = plan_study(study, chosen, options, watch.announce)
        _print_plans(plans, planned_tuning(study), arguments)
        return FINE
    from distilbench.runs.study_run import run_study

    with _others_beside(arguments.engine):
        finished = run_study(study, chosen, options, watch)
    return _summary(chosen.out, list({item.record.run_id: item.record for item in finished}.values()), arguments)


@contextmanager
def _others_beside(engine: str) -> Iterator[None]:
    """What libraries and workers print goes to stderr: what is on stdout may be read by a program."""
    with redirect_stdout(sys.stderr):
        yield
        if engine == "ray":
            from distilbench.runs.engines.on_ray import disconnect

            # It passes on what its workers print as long as there is a connection, and a rest as that ends.
            disconnect()


def _summary(out: Path, records: list[Record], arguments: argparse.Namespace) -> int:
    from distilbench.reporting import summary

    folder = out / records[0].study
    table, found = summary(records, folder)
    print_tables([table], arguments)
    for line in found:
        note(line, arguments)
    note(f"records: {folder}    report: distilbench report {folder} --out reports", arguments)
    failed = [f"{record.label} seed {record.seed} ({record.error})" for record in records if record.status == "failed"]
    if failed:
        say(f"distilbench: {len(failed)} of {len(records)} runs failed: {'; '.join(failed)}")
    return COULD_NOT_EVALUATE if failed else FINE


def _print_plans(plans: list[Plan], tuning: str, arguments: argparse.Namespace) -> None:
    if arguments.format == "json":
        print_json([{"study": plan.study, **row} for plan in plans for row in _planned(plan)])
        return
    for place, plan in enumerate(plans):
        if place:
            print_between(arguments)
        print_rows(_planned(plan), plan.study, arguments)
        to_do = [item for item in plan.runs if item.is_open]
        begun = sum(item.state.startswith("at step") for item in to_do)
        from_checkpoints = f" ({begun} from a checkpoint)" if begun else ""
        print_beside(f"text: {plan.text}; teacher signals: {plan.signals}; device: {plan.device}", arguments)
        print_beside(
            f"{len(plan.runs)} runs, {len(to_do)} to do{from_checkpoints}; teacher pass and evaluation not counted, "
            "training about",
            arguments,
        )
        for name, (layout, left) in plan.estimates.items():
            threads = f"{layout.threads} thread{'s' if layout.threads > 1 else ''} for each run"
            print_beside(f"  {name}: {duration(left)} ({threads})", arguments)
    if tuning:
        print_beside(tuning, arguments)


def _planned(plan: Plan) -> list[dict[str, object]]:
    return [
        {
            "run": item.run_id,
            "method": item.run.entry.label,
            "seed": item.run.seed,
            "budget": item.budget,
            "state": item.state,
            "est. minutes": "-" if item.seconds is None else f"{item.seconds / 60:.1f}",
            "est. TFLOPs": "-" if item.student_flops is None else f"{item.student_flops / 1e12:.2f}",
        }
        for item in plan.runs
    ]


def duration(seconds: float) -> str:
    """In the unit that people would say it in."""
    if seconds < LEAST_MINUTES * 60:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < MOST_MINUTES else f"{minutes // 60} h {minutes % 60:02d} min"
