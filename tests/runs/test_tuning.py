"""Equal tuning: as many trials for all, none repeated after a kill, and no choice by what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.evaluation.task_types.kinds import Sts
from distilbench.records.design import TUNING_FILE, Trial, Tuned, read_design, write_tuning
from distilbench.runs import trained as trained_module
from distilbench.runs import tune as tuning_module
from distilbench.runs.engines import worker_pool
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.engines.layout import Layout
from distilbench.runs.engines.worker_pool import Workers
from distilbench.runs.prepare.inputs import Inputs, make_inputs, with_methods
from distilbench.runs.prepare.prepared import PreparedRun, prepare_run
from distilbench.runs.progress import ProgressBar, Watch
from distilbench.runs.trained import Training, training_of
from distilbench.runs.tune import tune, with_tuned
from distilbench.study.rows import method_entry
from distilbench.study.search_space import Sampler, at, space_of
from distilbench.study.sections.texts import LabelledSpec
from distilbench.study.sections.training import TuneSpec
from distilbench.study.study import Study, runs_of
from distilbench.study.study_file import load_study
from distilbench.training.dev.response import DevSet
from distilbench.training.loop import train
from distilbench_methods.space import Choice, Span

SPACE: dict[str, Span | Choice] = {"a": Span(0.1, 10.0, log=True), "b": Span(2, 64), "c": Choice("x", 1.0, True)}


@pytest.mark.parametrize("sampler", ["quasi-random", "tpe"])
def test_settings_come_again_in_the_same_order(sampler: str) -> None:
    def drawn(count: int) -> list[dict[str, Any]]:
        source, found = Sampler(SPACE, TuneSpec(trials=8, sampler=sampler), seed=0), []  # type: ignore[arg-type]
        for number in range(count):
            asked, settings = source.ask()
            source.tell(asked, None if number == 2 else settings["a"])
            found.append(settings)
        return found

    eight = drawn(8)
    assert eight[:5] == drawn(5)
    assert all(settings[name] in SPACE[name] for settings in eight for name in SPACE)
    assert all(isinstance(settings["b"], int) for settings in eight)
    assert len({settings["a"] for settings in eight}) == 8


def test_shares_of_a_range() -> None:
    assert [at(Span(1.0, 100.0, log=True), share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 10.0, 100.0])
    assert [at(Span(0, 10), share) for share in (0.0, 0.44, 1.0)] == [0, 4, 10]
    assert [at(Choice("a", "b"), share) for share in (0.0, 0.49, 0.5, 1.0)] == ["a", "a", "b", "b"]


def test_what_a_row_sets_itself_is_not_tuned() -> None:
    spec, alone = TuneSpec(trials=2), TuneSpec(trials=2, learning_rate=None)
    own = {"hsic_weight", "temperature", "gamma", "detach_input"}
    assert set(space_of(method_entry("ibkd"), spec)) == {*own, "learning_rate"}
    assert set(space_of(method_entry({"ibkd": {"learning_rate": 0.1}}), spec)) == own
    assert set(space_of(method_entry("ibkd-median"), alone)) == own - {"gamma"}
    both = space_of(method_entry({"both": [{"ibkd": {"temperature": 0.1}}, "simcse-supervised"]}), spec)
    expected = {"ibkd.gamma", "ibkd.learning_rate", "simcse-supervised.temperature", "simcse-supervised.learning_rate"}
    assert expected <= set(both) and "ibkd.temperature" not in both


def test_the_learning_rates_of_all_rows_are_drawn_from_one_span() -> None:
    spec = TuneSpec(trials=2, learning_rate=(1e-4, 1e-2))
    spans = [space_of(method_entry(name), spec)["learning_rate"] for name in ("mse", "simcse", "ibkd")]
    assert spans == [Span(1e-4, 1e-2, log=True)] * 3


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tune={trials: 1}"], "tune.trials: input should be greater than or equal to 2, got 1"),
        (["tune={trials: 4}"], "tune needs dev"),
        (["tune={trials: 4, seeds: [2]}", "dev={source: x.csv}"], "tune.seeds has the seed 2 of the final runs"),
        (
            ["tune={trials: 4, methods: [mze]}", "dev={source: x.csv}"],
            "tune.methods: unknown label 'mze'",
        ),
        (["tune={trials: 4, prune: 1}", "dev={source: x.csv}"], "unknown key 'prune'"),
        (
            ["tune={trials: 4}", "dev={source: x.csv}", "ablate={mse: {factors: {metric: l2}}}"],
            "tune and ablate cannot be had in one study",
        ),
        (
            ["tune={trials: 4, learning_rate: null}", "dev={source: x.csv}", "methods=[{leaf: {normalize: false}}]"],
            "tune: leaf has nothing to tune",
        ),
    ],
)
def test_bad_tuning_is_one_sentence(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study("ci", overrides)
    assert expected in str(caught.value)


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def tunable(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Inputs:
    study = Study.model_validate(
        {
            "name": "tuned",
            "teacher": str(teacher_folder),
            "student": {"layers": 1, "width": 16},
            "text": {"source": str(text_file), "evaluation_text": "keep"},
            "dev": {"source": str(labelled_file), "columns": ["anchor", "positive"], "scores": ["good"], "points": 1},
            "budget": {"steps": 2},
            "methods": ["simcse", {"ibkd": {"temperature": 0.5}}],
            "tune": {"trials": 3, "seeds": [7]},
            "seeds": 2,
            "tasks": ["embedded"],
            "train": {"batch_size": 16, "max_length": 32},
        }
    )
    made = make_inputs(study, Settings(out=tmp_path / "out", cache=tmp_path / "cache", mirror=None, device="cpu"))
    # What is reported has no part in the choice.
    return replace(made, tasks=list)


def test_a_killed_tuning_goes_on_without_repeating_a_trial(tunable: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counted(*given: Any, **named: Any) -> Any:
        trained.append(given[0].seed)
        return train(*given, **named)

    class Kills(Watch):
        def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
            if len(trained) == 4:
                raise Killed

    class Listens(Watch):
        def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
            there.append(known)

    monkeypatch.setattr(trained_module, "train", counted)
    with pytest.raises(Killed):
        tune(tunable, Kills())
    folder = tunable.settings.out / "tuned"
    before = read_design(folder).tuning
    assert before is not None and [len(item.trials) for item in before.methods] == [2, 2]

    there: list[bool] = []
    found = tune(tunable, Listens())
    assert trained == [7] * 6
    assert there == [True] * 4 + [False] * 2
    assert [item.trials[:2] for item in found.methods] == [item.trials for item in before.methods]
    assert read_design(folder).tuning == found
    assert [len(item.trials) for item in found.methods] == [3, 3]

    final = with_tuned(tunable, found)
    rows = {entry.label: entry for entry in final.study.methods}
    assert list(rows) == ["simcse", "ibkd", "simcse-tuned", "ibkd-tuned"]
    best = found.methods[1].chosen
    assert best is not None and best.score == max(trial.score or -1.0 for trial in found.methods[1].trials)
    assert best.hyperparameters.items() <= rows["ibkd-tuned"].hyperparameters.items()
    assert rows["ibkd-tuned"].hyperparameters["temperature"] == 0.5
    assert [rows[label].tuning_trials for label in rows] == [0, 0, 3, 3]
    ids = [prepare_run(final, run).id for run in runs_of(final.study)]
    assert len(set(ids)) == len(ids)
    assert not {run for item in found.methods for trial in item.trials for run in trial.runs} & set(ids)


def test_trials_beside_the_records_are_not_trained_again_on_another_machine(tunable: Inputs, tmp_path: Path) -> None:
    class Listens(Watch):
        def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
            there.append(known)

    one = with_methods(tunable, tunable.study.methods[:1])
    both = replace(make_inputs(tunable.study, replace(tunable.settings, out=tmp_path / "both")), tasks=list)
    of_both = tune(both, Watch())
    found = tune(one, Watch())
    (item,) = found.methods
    lost = replace(item, trials=[item.trials[0], replace(item.trials[1], score=None, error="lost"), item.trials[2]])
    write_tuning(one.settings.out / "tuned", replace(found, methods=[lost]))
    there: list[bool] = []
    elsewhere = make_inputs(one.study, replace(one.settings, cache=tmp_path / "another"))
    assert tune(replace(elsewhere, tasks=list), Listens()) == found
    assert there == [True, False, True]

    class Kills(Watch):
        def trial(self, place: tuple[int, int], label: str, trial: Trial, known: bool) -> None:
            raise Killed

    with pytest.raises(Killed):
        tune(both, Kills())
    assert read_design(both.settings.out / "tuned").tuning == of_both


@pytest.mark.slow
def test_workers_tune_as_one_process_does(tunable: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tune(tunable, Watch())
    shared = make_inputs(tunable.study, replace(tunable.settings, out=tmp_path / "out2", cache=tmp_path / "cache2"))
    monkeypatch.setattr(tuning_module, "training_of", None)
    assert tune(replace(shared, tasks=list), Watch(), Workers(Layout(2, 1))) == alone


def test_the_jobs_that_were_asked_for_tune_too(
    study: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    labelled_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Here:
        def __init__(self, layout: Layout) -> None:
            assert layout.jobs == 2

        def __call__(self, runs: list[PreparedRun], on_progress: Any, job: Any) -> Any:
            labels.append(sorted({run.cell.entry.label for run in runs}))
            return in_this_process(runs, on_progress, job)

    labels: list[list[str]] = []
    monkeypatch.setattr(worker_pool, "Workers", Here)
    dev = {"source": str(labelled_file), "columns": ["anchor", "positive"], "scores": ["good"], "points": 1}
    tuned = study(dev=dev, methods=["simcse", "mse"], tune={"trials": 2, "seeds": [7]}, seeds=1)
    assert cli("run", tuned, "--jobs", 2)[0] == 0
    assert labels[:2] == [["mse-trial", "simcse-trial"]] * 2
    assert "simcse-tuned" in labels[-1]


def test_settings_are_not_chosen_by_pairs_of_a_task(tunable: Inputs, labelled_file: Path) -> None:
    class Task:
        name, is_retrieval, tables = "Shared", False, Sts()
        instance = SimpleNamespace(column_names=("sentence1", "sentence2"))

        def splits(self) -> Any:
            table = pd.read_csv(labelled_file)
            yield "default", "test", {"sentence1": table["anchor"].str.upper(), "sentence2": table["positive"]}

    shared: Any = [Task()]
    with pytest.raises(UserError, match="tune: 120 pairs of dev are also in the task Shared"):
        tune(replace(tunable, tasks=lambda: shared), Watch())
    assert not (tunable.settings.out / "tuned" / TUNING_FILE).exists()


@pytest.mark.parametrize("how", ["tune", "best-on-dev", "watched"])
def test_dev_pairs_that_rank_nothing_are_refused_before_anything_is_trained(
    study: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], labelled_file: Path, tmp_path: Path, how: str
) -> None:
    dev = {"source": str(labelled_file), "columns": ["anchor", "positive"], "scores": ["bad"], "points": 1}
    changes: dict[str, Any] = {"dev": dev}
    if how == "tune":
        changes |= {"methods": ["simcse"], "tune": {"trials": 2, "seeds": [7]}}
    elif how == "best-on-dev":
        changes |= {"train": {"batch_size": 16, "max_length": 64, "checkpoint": "best-on-dev"}}
    code, _, said = cli("run", study(**changes))
    assert code == 2 and "no two pairs with different scores; there is nothing to rank" in said, said
    assert not list(tmp_path.glob("*/runs/*")) and not list(tmp_path.glob("*/tiny"))


def test_an_undefined_dev_score_is_not_called_divergence(tunable: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_methods(tunable, tunable.study.methods[:1])
    monkeypatch.setattr(DevSet, "look", lambda *_: (float("nan"), {}))
    (item,) = tune(one, Watch()).methods
    assert {trial.error for trial in item.trials} == {
        "a dev score is undefined: the student's vectors are all equal, or not finite"
    }
    assert item.chosen is None


def test_a_training_that_diverged_is_called_so(tunable: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_methods(tunable, tunable.study.methods[:1])
    monkeypatch.setattr(tuning_module, "training_of", lambda run, *_: Training(one.teacher.source, status="diverged"))
    assert {trial.error for trial in tune(one, Watch()).methods[0].trials} == {"a training diverged"}


def test_a_trial_whose_scores_are_out_of_reach_is_not_trained(
    tunable: Inputs, labelled_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = LabelledSpec(source=str(labelled_file), scores=["good", "bad"])
    entries = [method_entry("margin-mse")]
    study = tunable.study.model_copy(update={"labelled": labelled, "methods": entries, "tune": TuneSpec(trials=2)})
    scales = iter((0.3, 5.0))
    monkeypatch.setattr(Sampler, "ask", lambda self: (None, {"scale": next(scales)}))
    monkeypatch.setattr(Sampler, "tell", lambda self, asked, score: None)
    made = replace(make_inputs(study, tunable.settings), tasks=list)
    first, second = tune(made, Watch()).methods[0].trials
    assert (first.score, first.runs) == (None, [])
    assert first.error is not None and "set scale to 0.4 or more" in first.error
    assert second.score is not None


def test_a_trial_that_fails_is_a_trial(
    tunable: Inputs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = iter([True, False, False])

    def fail_once(*given: Any) -> Any:
        if next(failing):
            raise RuntimeError("planted")
        return training_of(*given)

    monkeypatch.setattr(tuning_module, "training_of", fail_once)
    one = with_methods(tunable, tunable.study.methods[:1])
    final = with_tuned(one, tune(one, ProgressBar("tuned")))
    assert [entry.label for entry in final.study.methods] == ["simcse", "simcse-tuned"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[trial ")]
    assert [line.split("] simcse: temperature ")[0] for line in told] == ["[trial 1/3", "[trial 2/3", "[trial 3/3"]
    assert told[0].endswith(": RuntimeError: planted") and ": dev " in told[1]
    found = read_design(one.settings.out / "tuned").tuning
    assert found is not None
    (item,) = found.methods
    assert [trial.error for trial in item.trials] == ["RuntimeError: planted", None, None]
    assert item.chosen is not None and item.chosen is not item.trials[0]
    assert Tuned("a", "a-tuned", {}, [item.trials[0]]).chosen is None
