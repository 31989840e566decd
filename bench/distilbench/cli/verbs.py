"""What each verb of the command line does: a function of its parsed arguments that returns the exit code.

Heavy imports wait until a verb needs them. Raises `UserError`, which the command line says in one sentence.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from distilbench.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from distilbench.records.record import Record
    from distilbench.runs.plan import Plan

FINE, FAILED, COULD_NOT_EVALUATE = 0, 1, 3
"""Exit codes; the command line itself ends with 2 for wrong use and 130 when interrupted."""


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def run(arguments: argparse.Namespace) -> int:
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.core.machine import settings
    from distilbench.study.study_file import load_study

    study = load_study(arguments.study, arguments.overrides, arguments.limit, arguments.budget)
    chosen = settings(arguments.out, arguments.mirror, arguments.device, writing=not arguments.dry_run)
    chosen = replace(chosen, checkpoint_seconds=arguments.checkpoint_seconds)
    from distilbench.runs.engines import EngineOptions
    from distilbench.runs.progress import ProgressBar

    options = EngineOptions(
        jobs=arguments.jobs,
        threads=arguments.threads,
        gpu_share=arguments.gpu_share,
        engine=arguments.engine,
        address=arguments.address,
    )
    watch = ProgressBar(study.name)
    if arguments.dry_run:
        from distilbench.runs.plan import plan_study, planned_tuning

        for plan in plan_study(study, chosen, options, watch.announce):
            _print_plan(plan)
        if study.tune:
            _console().print(planned_tuning(study))
        return FINE
    from distilbench.runs.study_run import run_study

    finished = run_study(study, chosen, options, watch)
    return _summary(chosen.out, list({item.record.run_id: item.record for item in finished}.values()))


def _summary(out: Path, records: list[Record]) -> int:
    from distilbench.report import terminal_table

    _console().print(terminal_table(records))
    folder = out / records[0].study
    say(f"records: {folder}    report: distilbench report {folder} --out reports")
    failed = [f"{record.label} seed {record.seed} ({record.error})" for record in records if record.status == "failed"]
    if failed:
        say(f"distilbench: {len(failed)} of {len(records)} runs failed: {'; '.join(failed)}")
    return COULD_NOT_EVALUATE if failed else FINE


def _print_plan(plan: Plan) -> None:
    from rich.table import Column, Table

    method = Column("method", overflow="fold")
    table = Table("run", method, "seed", "budget", "state", "est. TFLOPs", "est. training s", title=plan.study)
    for item in plan.runs:
        flops = "-" if item.student_flops is None else f"{item.student_flops / 1e12:.2f}"
        seconds = "-" if item.seconds is None else f"{item.seconds:.0f}"
        table.add_row(item.run_id, item.run.entry.label, str(item.run.seed), item.budget, item.state, flops, seconds)
    console = _console()
    console.print(table)
    to_do = [item for item in plan.runs if item.state == "to do"]
    console.print(f"text: {plan.text}; teacher signals: {plan.signals}; device: {plan.device}")
    console.print(f"{len(plan.runs)} runs, {len(to_do)} to do; teacher pass and evaluation not counted, training about")
    for name, (layout, left) in plan.estimates.items():
        threads = f"{layout.threads} thread{'s' if layout.threads > 1 else ''} for each run"
        console.print(f"  {name}: {left / 3600:.2f} hours ({threads})")


def report(arguments: argparse.Namespace) -> int:
    from distilbench.report import Options, build

    options = Options(margin=arguments.margin / 100, reference=arguments.reference)
    for page in build(arguments.results, arguments.out, options):
        _console().print(str(page), soft_wrap=True)
    return FINE


def check(arguments: argparse.Namespace) -> int:
    from distilbench.gate.candidate import is_model
    from distilbench.gate.output import as_table, headline, to_junit, to_text
    from distilbench.gate.run import Options, bless_candidate, check_candidate

    options = Options(
        margin=arguments.margin / 100,
        alpha=arguments.alpha,
        tasks=tuple(arguments.tasks),
        row=arguments.row,
        changed=arguments.changed,
        drift=arguments.drift,
        mirror=arguments.mirror,
        device=arguments.device,
        confirm=arguments.confirm,
        slices=arguments.slices,
    )
    if options.drift or is_model(arguments.candidate):
        from distilbench.core.quiet import quiet_libraries

        quiet_libraries()
    if arguments.bless:
        for note in bless_candidate(arguments.candidate, arguments.baseline, options):
            say(note)
        say(f"{arguments.baseline} and its tables are written; review and commit them")
        return FINE
    outcome = check_candidate(arguments.candidate, arguments.baseline, options)
    if arguments.plan:
        from distilbench.gate.plan import plan

        outcome = replace(outcome, notes=[*outcome.notes, *plan(outcome.lines, options.margin, options.alpha)])
    if arguments.history:
        from distilbench.gate.history import append

        append(arguments.history, outcome, str(arguments.candidate), str(arguments.baseline))
    if arguments.junit:
        arguments.junit.write_text(to_junit(outcome), encoding="utf-8")
    if arguments.summary:
        from distilbench.report.render import to_markdown

        arguments.summary.write_text(to_markdown(as_table(outcome)), encoding="utf-8")
    if arguments.json:
        sys.stdout.write(
            json.dumps({"headline": headline(outcome), **outcome.as_dict(), "exit_code": outcome.exit_code}, indent=2)
            + "\n"
        )
    else:
        sys.stdout.write(to_text(outcome))
    say(f"distilbench check: {outcome.verdict}")
    return outcome.exit_code


def trend(arguments: argparse.Namespace) -> int:
    from distilbench.gate.trend import draw

    for line in draw(arguments.history, arguments.out):
        _console().print(line, soft_wrap=True, markup=False)
    return FINE


def power(arguments: argparse.Namespace) -> int:
    from distilbench.report import power
    from distilbench.report.render import to_json, to_rich

    for table in power(arguments.results, arguments.delta):
        if arguments.json:
            sys.stdout.write(to_json(table))
        else:
            _console().print(to_rich(table, len(table.text.columns)))
    return FINE


def advise(arguments: argparse.Namespace) -> int:
    from distilbench.report.advise import advise, situation
    from distilbench.report.render import to_json, to_rich

    wanted = situation(arguments.budget, arguments.size, arguments.latency)
    tables, reasons = advise(arguments.results, wanted)
    for table in tables:
        if arguments.json:
            sys.stdout.write(to_json(table))
        else:
            _console().print(to_rich(table, len(table.text.columns)))
    for reason in reasons:
        say(f"nothing can be said from {reason}")
    return FINE if tables else COULD_NOT_EVALUATE


def _print_rows(rows: list[dict[str, Any]], as_json: bool, title: str) -> int:
    console = _console()
    if as_json:
        console.print_json(json.dumps(rows))
        return FINE
    from rich.table import Table

    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    return FINE


def methods(arguments: argparse.Namespace) -> int:
    from distilbench.study.method_catalogue import describe_method, describe_methods

    if arguments.markdown:
        from distilbench.conform.method_table import markdown

        sys.stdout.write(markdown())
        return FINE
    if arguments.name is None:
        entries = describe_methods()
        if arguments.json:
            return _print_rows([asdict(entry) for entry in entries], True, "")
        rows = [{"method": entry.name, "what it does": entry.summary} for entry in entries]
        return _print_rows(rows, False, "Methods (details: distilbench methods NAME)")
    entry = describe_method(arguments.name)
    if arguments.json:
        return _print_rows([asdict(entry)], True, "")
    console = _console()
    console.print(f"[bold]{entry.name}[/bold]: {entry.summary}\n\nSource: {entry.source}")
    if entry.unverified:
        console.print(f"Unverified: {entry.unverified}")
    return _print_rows([asdict(item) for item in entry.hyperparameters], False, "Hyperparameters")


def tasks(arguments: argparse.Namespace) -> int:
    from distilbench.evaluation.tasks.profiles import DESCRIPTIONS, PROFILES

    rows = [
        {"profile": name, "tasks": ", ".join(tasks), "what it is": DESCRIPTIONS[name]}
        for name, tasks in PROFILES.items()
    ]
    return _print_rows(rows, arguments.json, "Task profiles (or any STS or retrieval task of mteb by its name)")


def studies(arguments: argparse.Namespace) -> int:
    from distilbench.study.study_file import shipped_studies

    rows = [
        {
            "study": name,
            "what it is": path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "),
            "file": str(path),
        }
        for name, path in shipped_studies().items()
    ]
    return _print_rows(rows, arguments.json, "Studies that come with distilbench")


def diff(arguments: argparse.Namespace) -> int:
    from distilbench.report.diff import diff, shown_examples

    found = diff(arguments.first, arguments.second, arguments.tasks)
    for task, why in found.left_out.items():
        say(f"{task} is left out: {why}")
    texts = None
    if arguments.texts:
        from distilbench.core.quiet import quiet_libraries

        quiet_libraries()
        from distilbench.evaluation.tasks.content import texts_of_tasks

        texts = texts_of_tasks(found.second, list(dict.fromkeys(found.examples["task"])), arguments.mirror)
    rows = shown_examples(found, arguments.top, texts)
    if arguments.json:
        sys.stdout.write(json.dumps({"summary": found.summary().to_dict("records"), "examples": rows}, indent=2) + "\n")
        return FINE
    summary = [{str(key): value for key, value in row.items()} for row in found.summary().round(2).to_dict("records")]
    _print_rows(summary, False, f"{found.first.label} -> {found.second.label}")
    return _print_rows(rows, False, "Where they differ most (gain x100: better placed or answered in the second)")


def export(arguments: argparse.Namespace) -> int:
    from distilbench.core.machine import cache_folder
    from distilbench.runs.export import export_run

    _console().print(str(export_run(arguments.run, arguments.out, cache_folder(), onnx=arguments.onnx)), soft_wrap=True)
    return FINE


def calibrate(arguments: argparse.Namespace) -> int:
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.core.machine import settings
    from distilbench.evaluation.calibration import calibrate_by_name

    chosen = settings(".", arguments.mirror, arguments.device, writing=False)
    outcome = calibrate_by_name(arguments.teacher, arguments.tasks, chosen)
    for name, why in outcome.left_out.items():
        say(f"{name} is left out: {why}")
    if not outcome.compared:
        say(f"distilbench: nothing to compare: no published figure of {arguments.teacher} on a task that is here")
        return COULD_NOT_EVALUATE
    rows = [item.row(as_text=not arguments.json) for item in outcome.compared]
    _print_rows(rows, arguments.json, f"{arguments.teacher} beside its published scores (x100)")
    if outcome.wrong is not None:
        say(f"distilbench: {outcome.wrong}")
    return FINE if outcome.wrong is None else FAILED


def prefetch(arguments: argparse.Namespace) -> int:
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.runs.prefetch import mirror_to_fill, prefetch
    from distilbench.study.study_file import load_study

    study = load_study(arguments.study, arguments.overrides)
    mirror = mirror_to_fill(arguments.out)
    parts = list(prefetch(study, mirror))
    _print_rows([asdict(part) for part in parts], arguments.json, f"What {study.name} reads, in {mirror}")
    if missing := [f"{part.kind} {part.name}" for part in parts if part.state == "missing"]:
        raise UserError(
            f"{len(missing)} of {len(parts)} parts cannot be had ({', '.join(missing)}; why is said above); prefetch "
            "where the Hub can be reached, or put them into the mirror"
        )
    return FINE


def conform(arguments: argparse.Namespace) -> int:
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.conform.listing import conform_in_words

    outcomes = conform_in_words(arguments.method, arguments.overrides)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if arguments.json:
        _print_rows([asdict(outcome) for outcome in outcomes], True, "")
        return FAILED if failed else FINE
    rows = [{"check": item.check, "what it asks": item.promise, "outcome": item.status} for item in outcomes]
    _print_rows(rows, False, " ".join(["distilbench conform", arguments.method, *arguments.overrides]))
    for outcome in outcomes:
        if outcome.explanation:
            _console().print(f"{outcome.check}, {outcome.status}: {outcome.explanation}", markup=False)
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    say(f"{passed} passed, {len(failed)} failed, {len(outcomes) - passed - len(failed)} not applicable")
    return FAILED if failed else FINE
