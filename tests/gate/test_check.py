"""The gate: a drop fails, no drop passes, noise is inconclusive, and what cannot be compared is never a pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.data.embedded.pinned import pinned_texts
from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.tasks.profiles import PROFILES
from distilbench.gate.baseline import Scores, bless, read_baseline, scores_of, scores_to_bless
from distilbench.gate.check import CheckResult, check
from distilbench.gate.plan import plan
from distilbench.gate.run import CheckOptions, bless_candidate, check_candidate
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, to_dict
from distilbench.records.schema import Status
from tests.reporting.conftest import make_facts

Make = Callable[..., Path]
PAIRS, QUERIES = 400, 120


def examples(noise: float, key: tuple[int, ...], spread: float) -> pd.DataFrame:
    shared, own = np.random.default_rng(5), np.random.default_rng(key)
    level, frames = noise + spread * own.normal(), []
    for task in ("STS-A", "STS-B"):
        gold, hard = np.round(shared.uniform(0, 5, PAIRS), 1), shared.normal(size=PAIRS)
        similarity = gold / 5 + 0.4 * level * (hard + 0.1 * own.normal(size=PAIRS))
        frames.append(pd.DataFrame({"gold": gold, "similarity": similarity, "task": task}))
    ndcg = np.clip(1 - level * shared.uniform(size=QUERIES) + 0.02 * own.normal(size=QUERIES), 0, 1)
    frames.append(pd.DataFrame({"ndcg_at_10": ndcg, "task": "Search"}))
    return pd.concat([frame.assign(split="test", example=frame.index.astype(str), slices="") for frame in frames])


def record_of(label: str, seed: int, found: pd.DataFrame, stream: int) -> Record:
    pairs = {name: part for name, part in found.groupby("task") if name != "Search"}
    scores = {str(name): float(spearmanr(part["gold"], part["similarity"]).statistic) for name, part in pairs.items()}
    scores["Search"] = float(found["ndcg_at_10"].dropna().mean())
    kinds = {"STS-A": "STS", "STS-B": "STS", "Search": "Retrieval"}
    return Record(
        run_id=f"{label}-{seed}",
        study="demo",
        role="method",
        label=label,
        method=label,
        hyperparameters={},
        status="completed",
        seed=seed,
        teacher={"name": "teacher", "sha256": "t", "output_width": 24},
        student={"layers": 2, "width": 16, "output_width": 16, "parameters": 1000},
        text={"source": "text", "sentences": 16, "sha256": "x"},
        train={"batch_size": 16},
        budget={"currency": "steps", "amount": 4},
        ledger={"steps": 4, "sentences": 64, "tuning_trials": 0, "seconds": {}},
        tasks={n: make_facts(n, kind) for n, kind in kinds.items()},
        scores={name: {"main_score": score} for name, score in scores.items()},
        identity={
            "start": f"start {seed}",
            "batches": f"batches {seed} {stream}",
            "weights": f"weights {label} {seed} {stream}",
        },
        environment={"mteb": "2.0", "torch": "2.0", "transformers": "5.0"}
        | {"platform": "Linux", "cpu": "a CPU", "threads": 1, "device": "cpu"},
    )


def write_study(
    folder: Path,
    labels: dict[str, float] | None = None,
    seeds: int = 3,
    stream: int = 0,
    spread: float = 0.002,
    change: Callable[[Record], Record] = lambda record: record,
) -> Path:
    for number, (label, noise) in enumerate((labels or {"mse": 0.6, "ckd": 0.7}).items()):
        for seed in range(1, seeds + 1):
            found = examples(noise, (number, seed, stream), spread)
            record = change(record_of(label, seed, found, stream))

            def leave(path: Path, record: Record = record, found: pd.DataFrame = found) -> None:
                dump_json(to_dict(record), path / RECORD_FILE)
                found.to_parquet(path / EXAMPLES_FILE, index=False)

            write_sealed(folder / record.run_id, leave)
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, *arguments: Any, **settings: Any) -> Path:
        return write_study(tmp_path / name, *arguments, **settings)

    return write


@pytest.fixture(scope="module")
def blessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blessed")
    bless(scores_of(write_study(folder / "study")), folder / "baselines" / "demo.json")
    return folder / "baselines"


@pytest.fixture
def baseline(blessed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(blessed, tmp_path / "baselines")) / "demo.json"


def verdicts(outcome: CheckResult, column: str) -> dict[str, str]:
    return {line.label: line.verdict for line in outcome.lines if line.column == column}


def against(folder: Path, baseline: Path, margin: float = 0.005) -> CheckResult:
    return check(scores_of(folder), read_baseline(baseline), margin, 0.05)


def test_the_same_results_pass_with_no_difference(make: Make, baseline: Path) -> None:
    outcome = against(make("again"), baseline)
    assert (outcome.verdict, outcome.exit_code) == ("pass", 0)
    assert {line.difference for line in outcome.lines} == {0.0}
    assert all(line.paired for line in outcome.lines)
    assert {line.column for line in outcome.lines if line.decides} == {"STS average", "Search", "Mean (Task)"}


def test_fresh_seeds_of_the_same_code_do_not_regress(make: Make, baseline: Path) -> None:
    outcomes = [against(make(f"fresh-{stream}", stream=stream), baseline) for stream in range(1, 6)]
    assert [outcome.verdict for outcome in outcomes].count("regressed") == 0
    assert not any(line.paired for outcome in outcomes for line in outcome.lines)
    wide = against(make("fresh", stream=9), baseline, margin=0.05)
    assert wide.verdict == "pass"


def test_a_drop_regresses_and_a_rise_improves(make: Make, baseline: Path) -> None:
    worse = against(make("worse", {"mse": 0.7, "ckd": 0.7}, stream=1), baseline)
    assert (worse.verdict, worse.exit_code) == ("regressed", 1)
    assert verdicts(worse, "Mean (Task)")["mse"] == "regressed"
    assert verdicts(worse, "Mean (Task)")["ckd"] != "regressed"
    better = against(make("better", {"mse": 0.5, "ckd": 0.6}, stream=1), baseline)
    assert (better.verdict, better.exit_code) == ("improved", 0)


def test_noise_is_inconclusive_and_never_a_pass(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "noisy.json"
    bless(scores_of(make("noisy", spread=0.1, seeds=2)), path)
    outcome = against(make("other", spread=0.1, seeds=2, stream=1), path, margin=0.001)
    assert (outcome.verdict, outcome.exit_code) == ("inconclusive", 3)


def test_a_drop_of_one_task_alone_is_caught_by_its_guard(make: Make, baseline: Path) -> None:
    folder = make("one-task")
    for path in folder.iterdir():
        found = pd.read_parquet(path / EXAMPLES_FILE)
        record = json.loads((path / RECORD_FILE).read_text())
        mine = found["task"] == "STS-A"
        worse = found.loc[mine, "similarity"] + 0.4 * np.random.default_rng(3).normal(size=PAIRS)
        found.loc[mine, "similarity"] = worse
        score = float(spearmanr(found.loc[mine, "gold"], worse).statistic)
        record["scores"]["STS-A"]["main_score"] = score

        def leave(target: Path, record: dict[str, Any] = record, found: pd.DataFrame = found) -> None:
            dump_json(record, target / RECORD_FILE)
            found.to_parquet(target / EXAMPLES_FILE, index=False)

        write_sealed(path, leave)
    outcome = against(folder, baseline)
    assert outcome.verdict == "regressed"
    assert set(verdicts(outcome, "STS-A").values()) == {"regressed"}
    assert set(verdicts(outcome, "STS-B").values()) == {"pass"}


def other_data(record: Record) -> Record:
    return replace(record, tasks={name: {**facts, "data_sha256": "other"} for name, facts in record.tasks.items()})


def other_mteb(record: Record) -> Record:
    return replace(record, environment={**record.environment, "mteb": "3.0"})


def limited(record: Record) -> Record:
    return replace(record, limit=32)


def one_task_less(record: Record) -> Record:
    tasks, scores = dict(record.tasks), dict(record.scores)
    del tasks["Search"], scores["Search"]
    return replace(record, tasks=tasks, scores=scores)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_data, "data_sha256 differ"),
        (other_mteb, "scored with mteb 3.0, the baseline with 2.0"),
        (limited, "--limit 32"),
        (one_task_less, "no scores of Search"),
    ],
)
def test_what_was_scored_otherwise_is_not_comparable(
    make: Make, baseline: Path, change: Callable[[Record], Record], reason: str
) -> None:
    outcome = against(make("changed", change=change), baseline)
    assert (outcome.verdict, outcome.exit_code) == ("not comparable", 3)
    assert any(reason in note for note in outcome.notes)
    assert not any(line.verdict in ("pass", "improved") for line in outcome.lines)


def test_other_examples_are_not_comparable(make: Make, baseline: Path) -> None:
    scores = scores_of(make("again"))
    moved = scores.examples.copy()
    moved.loc[(moved["task"] == "STS-A") & (moved["example"] == "3"), "gold"] += 1.0
    outcome = check(replace(scores, examples=moved), read_baseline(baseline), 0.005, 0.05)
    assert outcome.verdict == "not comparable"
    assert set(verdicts(outcome, "STS-A").values()) == {"not comparable"}


def test_a_missing_row_is_never_a_pass(make: Make, baseline: Path) -> None:
    outcome = against(make("less", {"mse": 0.6}), baseline)
    assert (outcome.verdict, outcome.exit_code) == ("not evaluated", 3)
    assert verdicts(outcome, "Mean (Task)")["ckd"] == "not evaluated"


def test_a_score_that_is_no_number_is_never_a_pass(make: Make, baseline: Path, tmp_path: Path) -> None:
    scores = scores_of(make("again"))
    broken = scores.scores.copy()
    broken.iloc[0, 0] = np.nan
    assert check(replace(scores, scores=broken), read_baseline(baseline), 0.005, 0.05).verdict == "not comparable"
    with pytest.raises(UserError, match="missing or no numbers"):
        bless(replace(scores, scores=broken), tmp_path / "x.json")


def lost(how: str) -> Callable[[Record], Record]:
    """One run of two rows ended otherwise."""
    errors = {"failed": "RuntimeError: planted", "collapsed": "CollapseError: planted"}

    def change(record: Record) -> Record:
        if (record.label, record.seed) != ("mse", 2):
            return record
        status: Status = "diverged" if how == "diverged" else "failed"
        return replace(record, status=status, scores={}, tasks={}, error=errors.get(how))

    return change


def without_a_number(folder: Path) -> None:
    """As of a record that was written without care."""
    path = folder / "mse-2"
    record = json.loads((path / RECORD_FILE).read_text())
    record["scores"]["STS-A"]["main_score"] = float("nan")
    found = pd.read_parquet(path / EXAMPLES_FILE)

    def leave(target: Path) -> None:
        (target / RECORD_FILE).write_text(json.dumps(record))
        found.to_parquet(target / EXAMPLES_FILE, index=False)

    write_sealed(path, leave)


@pytest.mark.parametrize(
    ("how", "verdict", "reason"),
    [
        ("diverged", "regressed", "seed 2 diverged: the loss was not finite"),
        ("collapsed", "regressed", "seed 2 failed: CollapseError: planted"),
        ("no number", "regressed", "seed 2 diverged: its score of STS-A is not a number"),
        ("failed", "not evaluated", "seed 2 failed: RuntimeError: planted"),
        ("missing", "not evaluated", "seed 2 left no record"),
    ],
)
def test_a_run_without_scores_is_judged_by_why_it_has_none(
    make: Make, baseline: Path, tmp_path: Path, how: str, verdict: str, reason: str
) -> None:
    folder = make("lost", change=lost(how) if how in ("diverged", "collapsed", "failed") else lambda record: record)
    if how == "no number":
        without_a_number(folder)
    elif how == "missing":
        shutil.rmtree(folder / "mse-2")
    files = {f"--{name}": tmp_path / name for name in ("junit", "summary", "history")}
    arguments = [str(part) for pair in files.items() for part in pair]
    code = main(["check", str(folder), "--baseline", str(baseline), "--plan", *arguments])
    assert code == {"regressed": 1, "not evaluated": 3}[verdict]
    assert all(reason.partition("; ")[0] in file.read_text() for name, file in files.items() if name != "--history")
    assert json.loads(files["--history"].read_text())["verdict"] == verdict
    outcome = against(folder, baseline)
    assert verdicts(outcome, "Mean (Task)") == {"mse": verdict, "ckd": "pass"}
    with pytest.raises(UserError, match=r"mse seed 2 \(.*only completed runs can become a baseline"):
        scores_to_bless(folder)


def test_nothing_but_runs_without_scores_is_judged_as_well(make: Make, baseline: Path) -> None:
    folder = make("lost", change=lambda record: replace(record, status="diverged", scores={}, tasks={}))
    outcome = against(folder, baseline)
    assert (outcome.verdict, verdicts(outcome, "Mean (Task)")) == (
        "regressed",
        {"mse": "regressed", "ckd": "regressed"},
    )


def test_a_model_whose_vectors_have_collapsed_has_regressed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collapse(*_: object) -> None:
        raise CollapseError("3 of 9 vectors are not finite")

    bless(scores_of(make("one", {"mse": 0.6})), tmp_path / "one.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr("distilbench.gate.run.score_model", collapse)
    monkeypatch.setattr("distilbench.evaluation.tasks.by_name.is_known", lambda name: True)
    outcome = check_candidate(tmp_path / "model", tmp_path / "one.json", CheckOptions())
    assert (outcome.verdict, outcome.lines[0].reason) == ("regressed", "3 of 9 vectors are not finite")
    with pytest.raises(UserError, match="cannot be scored: 3 of 9"):
        bless_candidate(tmp_path / "model", tmp_path / "two.json", CheckOptions(tasks=("STS-A",)))


def test_a_name_that_no_file_can_hold_is_refused(make: Make) -> None:
    folder = make("odd", seeds=1, change=lambda record: replace(record, label="a\ud800"))
    with pytest.raises(UserError, match=r"record.json cannot be read as a record: .*surrogates"):
        scores_of(folder)


def test_results_that_are_not_there_cannot_be_checked(make: Make) -> None:
    with pytest.raises(UserError, match="holds no records"):
        scores_of(make("again").parent / "nowhere")


def test_a_drop_that_is_shown_stays_one_where_a_row_is_missing(make: Make, baseline: Path) -> None:
    outcome = against(make("less", {"mse": 0.9}, stream=1), baseline)
    assert verdicts(outcome, "Mean (Task)") == {"mse": "regressed", "ckd": "not evaluated"}
    assert (outcome.verdict, outcome.exit_code) == ("regressed", 1)


@pytest.fixture
def single(make: Make, tmp_path: Path) -> Path:
    """A baseline of one seed."""
    path = tmp_path / "single.json"
    bless(scores_of(make("single", {"mse": 0.6}, seeds=1)), path)
    return path


def test_the_same_weights_are_compared_without_seeds(make: Make, single: Path) -> None:
    again = against(make("again", {"mse": 0.6}, seeds=1), single)
    assert (again.verdict, again.exit_code) == ("pass", 0)


@pytest.mark.parametrize("noise", [0.6, 0.9])
def test_two_trainings_of_one_seed_each_decide_nothing(make: Make, single: Path, noise: float) -> None:
    """Neither another seed, nor the same one where the code has changed: what a seed changes is not known."""
    for name, stream in (("same batches", 0), ("others", 1)):

        def other_weights(record: Record) -> Record:
            return replace(record, identity=record.identity | {"weights": "other"})

        folder = make(name, {"mse": noise}, seeds=1, stream=stream, change=other_weights)
        outcome = against(folder, single, margin=0.5)
        assert (outcome.verdict, outcome.exit_code) == ("inconclusive", 3)
        assert {line.half_width for line in outcome.lines} == {None}
        assert all("(seed 1)" in line.reason and "two seeds more" in line.reason for line in outcome.lines)
        advice = plan(outcome.lines, 0.005, 0.05)
        assert all("train both with two seeds more" in line for line in advice[1:])


def test_one_seed_is_judged_by_the_spread_of_a_baseline_of_several(make: Make, baseline: Path) -> None:
    same = against(make("one", seeds=1, stream=1), baseline, margin=0.05)
    assert same.verdict == "pass"
    worse = against(make("worse", {"mse": 0.9, "ckd": 0.7}, seeds=1, stream=1), baseline)
    assert verdicts(worse, "Mean (Task)")["mse"] == "regressed"


def test_common_seeds_are_paired_and_the_others_named(make: Make, baseline: Path) -> None:
    folder = make("less")
    shutil.rmtree(folder / "mse-3")
    outcome = check(replace(scores_of(folder), lost=[]), read_baseline(baseline), 0.005, 0.05)
    assert {line.paired for line in outcome.lines} == {True}
    assert {line.difference for line in outcome.lines} == {0.0}
    assert outcome.verdict == "pass"
    assert "mse is compared on the seeds that both sides have; without a counterpart: 3." in outcome.notes


def test_a_model_is_compared_as_the_model_that_it_is(make: Make, single: Path) -> None:
    worse = scores_of(make("worse", {"mse": 0.7}, seeds=1, stream=1))
    outcome = check(worse, read_baseline(single), 0.005, 0.05, as_models=True)
    assert outcome.verdict == "regressed"
    # Of a model's seed there is nothing to say.
    worse.runs["seed"] = 0
    outcome = check(worse, read_baseline(single), 0.005, 0.05, as_models=True)
    assert not any("counterpart" in note for note in outcome.notes)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


TAMPERING: dict[str, Callable[[Path], object]] = {
    "score raised": lambda p: edit(p, lambda c: c["runs"]["mse-1"]["scores"].update({"STS-A": 0.99})),
    "label changed": lambda p: edit(p, lambda c: c["runs"]["mse-1"].update(label="ckd")),
    "seed changed": lambda p: edit(p, lambda c: c["runs"]["mse-1"].update(seed=7)),
    "run removed": lambda p: edit(p, lambda c: c["runs"].pop("mse-1")),
    "task removed": lambda p: edit(p, lambda c: c["tasks"].pop("Search")),
    "data hash changed": lambda p: edit(p, lambda c: c["tasks"]["STS-A"].update(data_sha256="other")),
    "mteb changed": lambda p: edit(p, lambda c: c.update(mteb="9.9")),
    "limit changed": lambda p: edit(p, lambda c: c.update(limit=8)),
    "provenance changed": lambda p: edit(p, lambda c: c["provenance"].update(teacher={})),
    "hash of the table changed": lambda p: edit(p, lambda c: c.update(examples_sha256="0" * 64)),
    "own hash changed": lambda p: edit(p, lambda c: c.update(sha256="0" * 64)),
    "own hash removed": lambda p: edit(p, lambda c: c.pop("sha256")),
    "another schema": lambda p: edit(p, lambda c: c.update(schema=99)),
    "schema removed": lambda p: edit(p, lambda c: c.pop("schema")),
    "not a mapping": lambda p: p.write_text("[]"),
    "not JSON": lambda p: p.write_text("{"),
    "empty": lambda p: p.write_text(""),
    "table missing": lambda p: p.with_suffix(".parquet").unlink(),
    "table cut": lambda p: p.with_suffix(".parquet").write_bytes(p.with_suffix(".parquet").read_bytes()[:-9]),
    "table of another study": lambda p: pd.DataFrame({"run": []}).to_parquet(p.with_suffix(".parquet")),
    "file missing": Path.unlink,
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_baseline_that_was_tampered_with_is_refused(
    baseline: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    TAMPERING[how](baseline)
    assert main(["check", "results", "--baseline", str(baseline)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("distilbench: error: ") and err.count("\n") == 1
    assert "bless" in err or "restore" in err


def test_the_command_writes_what_ci_reads(
    make: Make, baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = make("worse", {"mse": 0.7, "ckd": 0.7}, stream=1)
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    arguments = ["check", str(worse), "--baseline", str(baseline), "--junit", str(junit), "--summary", str(summary)]
    assert main([*arguments, "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["verdict"], outcome["exit_code"]) == ("regressed", 1)
    suite = ElementTree.fromstring(junit.read_text())
    assert int(suite.get("failures", "0")) == len(suite.findall("testcase/failure")) > 0
    assert "regressed" in summary.read_text()
    assert main([*arguments, "--margin", "50"]) == 0
    assert "MDE" in capsys.readouterr().out
    assert main(["check", str(worse), "--baseline", str(baseline), "--tasks", "STS-B", "Srch"]) == 2
    assert "no scores of Srch" in capsys.readouterr().err


def test_blessing_writes_the_same_bytes_again(make: Make, baseline: Path, tmp_path: Path) -> None:
    before = baseline.read_bytes(), baseline.with_suffix(".parquet").read_bytes()
    shutil.rmtree(tmp_path / "baselines")
    assert main(["check", str(make("again")), "--baseline", str(baseline), "--bless"]) == 0
    assert (baseline.read_bytes(), baseline.with_suffix(".parquet").read_bytes()) == before
    loaded: Scores = read_baseline(baseline)
    assert loaded.runs["seed"].tolist() == scores_of(tmp_path / "again").runs["seed"].tolist()


@pytest.mark.parametrize("moved", range(4))
def test_a_killed_blessing_leaves_no_mixture_that_passes(
    make: Make, baseline: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After no file was moved into place, one, two, and all three."""
    before = read_baseline(baseline)
    worse = scores_of(make("worse", {"mse": 0.7, "ckd": 0.7}, stream=1))
    worse = replace(worse, texts=pinned_texts(), vectors={"mse-1": np.ones((len(pinned_texts()), 4), dtype=np.float32)})
    left, move = moved, Path.replace

    def replace_or_die(source: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        if moved < 3:
            with pytest.raises(KeyboardInterrupt):
                bless(worse, baseline)
        else:
            bless(worse, baseline)
    if moved == 0:
        assert read_baseline(baseline).scores.equals(before.scores)
    elif moved < 3:
        with pytest.raises(UserError, match="restore both or bless again"):
            read_baseline(baseline)
    bless(worse, baseline)
    assert read_baseline(baseline).scores.loc[["mse-1"]].equals(worse.scores.loc[["mse-1"]])
    bless(scores_of(make("again")), baseline)
    assert sorted(file.name for file in baseline.parent.iterdir()) == ["demo.json", "demo.parquet"]


def test_a_candidate_that_cannot_be_blessed_leaves_the_baseline_as_it_was(make: Make, baseline: Path) -> None:
    files = {file: file.read_bytes() for file in baseline.parent.iterdir()}
    broken = replace(scores_of(make("again")), texts=["a"], vectors={"mse-1": np.full((1, 4), np.inf)})
    with pytest.raises(UserError, match="some vectors"):
        bless(broken, baseline)
    assert {file: file.read_bytes() for file in baseline.parent.iterdir()} == files


def test_blessing_says_what_changes_and_keeps_it(
    make: Make, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_baseline(baseline)
    better = make("better", {"mse": 0.5, "simcse": 0.6}, stream=1)
    assert main(["check", str(better), "--baseline", str(baseline), "--bless"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 3
    old, new = (side.scores["STS-A"][side.runs["label"] == "mse"].mean() * 100 for side in (before, scores_of(better)))
    assert f"mse on STS-A: {old:.2f} -> {new:.2f} ({new - old:+.2f})" in lines
    assert any(line.startswith("ckd on Search: ") and line.endswith(" -> none") for line in lines)
    assert any(line.startswith("simcse on Search: none -> ") for line in lines)
    (entry,) = read_baseline(baseline).history
    assert entry["candidate"] == str(better)
    assert entry["scores"]["mse"]["STS-A"] == pytest.approx([old / 100, new / 100])
    # What changes nothing leaves no entry.
    written = baseline.read_bytes()
    assert main(["check", str(better), "--baseline", str(baseline), "--bless"]) == 0
    assert capsys.readouterr().out == ""
    assert baseline.read_bytes() == written


def test_a_worse_candidate_is_blessed_for_a_reason_only(
    make: Make, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, worse = baseline.read_bytes(), make("worse", {"mse": 0.9, "ckd": 0.7}, stream=1)
    bless_it = ["check", str(worse), "--baseline", str(baseline), "--bless"]
    assert main(bless_it) == 1
    told = capsys.readouterr()
    assert "mse on STS-A" in told.out and "REGRESSED: mse" in told.err and "--accept-regression" in told.err
    assert baseline.read_bytes() == written
    assert main([*bless_it, "--accept-regression", "half the size"]) == 0
    (entry,) = read_baseline(baseline).history
    assert (entry["verdict"], entry["why"]) == ("regressed", "half the size")
    assert against(worse, baseline).verdict == "pass"
    # And the entry stays when the next candidate comes.
    assert main(["check", str(make("mended")), "--baseline", str(baseline), "--bless"]) == 0
    assert [item["why"] for item in read_baseline(baseline).history] == ["half the size", ""]


def test_a_baseline_that_cannot_be_read_is_replaced(make: Make, baseline: Path) -> None:
    baseline.write_text("{", encoding="utf-8")
    assert main(["check", str(make("again")), "--baseline", str(baseline), "--bless"]) == 0
    assert read_baseline(baseline).history == []


def test_a_profile_stands_for_its_tasks(make: Make, baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "pairs", ("STS-A", "STS-B"))
    outcome = check_candidate(make("again"), baseline, CheckOptions(tasks=("pairs",)))
    assert {line.column for line in outcome.lines} & {"STS-A", "STS-B", "Search"} == {"STS-A", "STS-B"}
    with pytest.raises(UserError, match=r"--tasks: the baseline has no scores of DistilbenchSTS; it has STS-A"):
        check_candidate(make("once-more"), baseline, CheckOptions(tasks=("embedded",)))


def test_a_model_is_blessed_on_the_tasks_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def ask(folder: Path, label: str, tasks: dict[str, str], *_: object) -> None:
        raise Asked(*tasks)

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("distilbench.gate.run.score_model", ask)
    with pytest.raises(Asked) as caught:
        bless_candidate(tmp_path, tmp_path / "b.json", CheckOptions(tasks=("embedded", "STS12")))
    assert caught.value.args == (*PROFILES["embedded"], "STS12")


def test_git_may_have_changed_the_line_ends_of_results_and_baseline(make: Make, baseline: Path) -> None:
    folder = make("windows")
    before = against(folder, baseline)
    files = [baseline, *folder.rglob("*.json"), *folder.rglob("SHA256SUMS")]
    assert len(files) > 7
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert against(folder, baseline) == before
    path = folder / "mse-1" / "record.json"
    path.write_bytes(path.read_bytes().replace(b"mse", b"msf"))
    with pytest.raises(UserError, match=r"record\.json is not as it was written"):
        against(folder, baseline)
