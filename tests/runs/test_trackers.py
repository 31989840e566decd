"""Curves, ledgers and scores in trackers: TensorBoard's files are read back, the others are held at their edge."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from distilbench.records.record import Record, read_study
from distilbench.runs.trackers import tracking
from distilbench.training.checkpoints import Checkpoints, Snapshot

Cli = Callable[..., tuple[int, str, str]]
Study = Callable[..., Path]
Points = dict[str, list[tuple[int, float]]]
BUDGET = {"steps": 25}


class Seen:
    """What a fake library was told: (project, run name) -> number -> its points."""

    def __init__(self) -> None:
        self.points: dict[tuple[str, str], Points] = {}
        self.open: set[tuple[str, str]] = set()
        self.settings: dict[tuple[str, str], dict[str, Any]] = {}
        self.begun: list[dict[str, Any]] = []

    def begin(self, project: str, name: str, settings: dict[str, Any]) -> tuple[str, str]:
        key = (project, name)
        self.points[key], self.settings[key] = defaultdict(list), settings
        self.open.add(key)
        sys.stdout.write("a library that talks\n")
        return key

    def log(self, key: tuple[str, str], values: dict[str, float], step: int) -> None:
        assert key in self.open
        for name, value in values.items():
            self.points[key][name].append((step, value))

    def run(self, seen: Seen, key: tuple[str, str]) -> SimpleNamespace:
        return SimpleNamespace(
            log=lambda values, step: seen.log(key, values, step), finish=lambda: seen.open.remove(key)
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen, fake = Seen(), ModuleType("wandb")

    def init(*, project: str, name: str, config: dict[str, Any], **rest: Any) -> Any:
        seen.begun.append(rest)
        return seen.run(seen, seen.begin(project, name, config))

    fake.__dict__.update(init=init, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return seen


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen, fake = Seen(), ModuleType("trackio")

    def init(project: str, *, name: str, config: dict[str, Any], **rest: Any) -> Any:
        assert (project, name) not in seen.points, "the run that it goes on from was to be deleted"
        seen.begun.append(rest)
        return seen.run(seen, seen.begin(project, name, config))

    def runs(project: str) -> list[Any]:
        mine = [key for key in seen.points if key[0] == project]
        if not mine:
            raise ValueError("no such project")
        return [SimpleNamespace(name=key[1], delete=lambda key=key: seen.points.pop(key)) for key in mine]

    fake.__dict__.update(init=init, Api=lambda: SimpleNamespace(runs=runs))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return seen


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    names: dict[str, str] = {}
    tags: dict[str, str] = {}

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            seen.begun.append({"uri": tracking_uri})

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=names[name]) if name in names else None

        def create_experiment(self, name: str) -> str:
            assert name not in names
            names[name] = name
            return name

        def search_runs(self, experiments: list[str], query: str) -> list[Any]:
            found = [name for name, tag in tags.items() if query == f"tags.`distilbench-run-id` = '{tag}'"]
            return [SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in found]

        def delete_run(self, run: str) -> None:
            del tags[run], seen.points["tiny", run]

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            _tags[run_name] = tags["distilbench-run-id"]
            seen.begin(experiment, run_name, {})
            return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

        def log_param(self, run: str, name: str, value: Any) -> None:
            seen.settings["tiny", run][name] = value

        def log_batch(self, run: str, metrics: list[Any]) -> None:
            for key, value, _, step in metrics:
                seen.log(("tiny", run), {key: value}, step)

        def set_terminated(self, run: str) -> None:
            seen.open.remove(("tiny", run))

    _tags = tags
    modules = {name: ModuleType(name) for name in ("mlflow", "mlflow.tracking", "mlflow.entities")}
    modules["mlflow.tracking"].__dict__.update(MlflowClient=Client)
    modules["mlflow.entities"].__dict__.update(Metric=lambda *given: given)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return seen


def written(folder: Path) -> dict[tuple[str, str], Points]:
    """What TensorBoard reads in a folder of logs."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[tuple[str, str], Points] = {}
    for path in sorted(folder.glob("*/*")):
        events = EventAccumulator(str(path))
        events.Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        found[path.parent.name, path.name] = {
            tag: [(point.step, point.value) for point in points] for tag, points in scalars.items()
        }
    return found


def of_records(folder: Path) -> Iterator[tuple[Record, pd.DataFrame]]:
    for record in read_study(folder):
        path = folder / record.run_id / "curve.parquet"
        yield record, pd.read_parquet(path) if path.is_file() else pd.DataFrame()


def check_all_told(found: dict[tuple[str, str], Points], folder: Path) -> None:
    """Each run's curve, ledger and scores are there once, as its record has them."""
    names = set()
    for record, curve in of_records(folder):
        name = f"{record.label}-seed{record.seed}-{record.run_id[:8]}"
        names.add((record.study, name))
        points = found[record.study, name]
        for column in set(curve) - {"step"}:
            steps, values = zip(*points[f"train/{column}"], strict=True)
            assert list(steps) == list(curve["step"]), (name, column)
            assert list(values) == pytest.approx(list(curve[column]), rel=1e-6), (name, column)
        assert [value for _, value in points["ledger/steps"]] == [record.ledger["steps"]]
        for task, scores in record.scores.items():
            assert [value for _, value in points[f"score/{task}"]] == [pytest.approx(100 * scores["main_score"])]
    assert names == set(found)


def test_the_curves_are_in_tensorboard(cli: Cli, study: Study, tmp_path: Path) -> None:
    path = study(methods=["mse", "simcse"], budget=BUDGET)
    code, _, err = cli("run", path, "--log", "tensorboard", "--log-dir", tmp_path / "tb")
    assert code == 0, err
    found = written(tmp_path / "tb")
    check_all_told(found, tmp_path / "results" / "tiny")
    (mse,) = [points for (_, name), points in found.items() if name.startswith("mse-")]
    assert [step for step, _ in mse["train/loss"]] == [1, 11, 21, 25] and len(found) == 4
    assert "warning" not in err.lower() and not (tmp_path / "logs").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_the_curves_are_in_the_others(
    cli: Cli, study: Study, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: Seen = request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    code, out, err = cli("run", study(methods=["mse"], budget=BUDGET), "--log", name)
    assert code == 0 and "talks" not in out + err, err
    check_all_told(seen.points, tmp_path / "results" / "tiny")
    assert seen.open == set()
    (settings,) = [given for (_, run), given in seen.settings.items() if run.startswith("mse-")]
    assert (settings["method"], settings["seed"], settings["budget"]) == ("mse", 1, "25 steps")
    if name == "wandb":
        assert {run["mode"] for run in seen.begun} == {"offline"} and {run["dir"] for run in seen.begun} == {"logs"}
    if name == "mlflow":
        assert {run["uri"] for run in seen.begun} == {f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}"}


def test_several_trackers_are_told_by_one_callback(cli: Cli, study: Study, tmp_path: Path, wandb: Seen) -> None:
    arguments = ("run", study(methods=["mse"]), "--log", "tensorboard, wandb", "--log-dir", tmp_path / "logs")
    assert cli(*arguments)[0] == 0
    check_all_told(written(tmp_path / "logs"), tmp_path / "results" / "tiny")
    check_all_told(wandb.points, tmp_path / "results" / "tiny")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_run_that_goes_on_is_told_whole_and_once(
    cli: Cli,
    study: Study,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    seen = None if name == "tensorboard" else request.getfixturevalue(name)
    path, save, saved = study(methods=["mse"], budget=BUDGET), Checkpoints.save, [0]

    def die(self: Checkpoints, take: Callable[[], Snapshot]) -> None:
        save(self, take)
        saved[0] += 1
        if saved[0] == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", die)
    arguments = ("run", path, "--log", name, "--log-dir", tmp_path / "logs", "--checkpoint-seconds", 0)
    assert cli(*arguments)[0] == 130
    code, _, err = cli(*arguments)
    assert code == 0, err
    found = written(tmp_path / "logs") if seen is None else seen.points
    check_all_told(found, tmp_path / "results" / "tiny")


def test_a_model_that_was_there_already_is_told_too(cli: Cli, study: Study, tmp_path: Path) -> None:
    path = study(methods=[{"two": ["leaf", {"simcse": {"share": 0.4}}]}], budget=BUDGET)
    assert cli("run", path, "--out", tmp_path / "first")[0] == 0
    assert cli("run", path, "--log", "tensorboard", "--log-dir", tmp_path / "logs")[0] == 0
    ((_, points),) = [item for item in written(tmp_path / "logs").items() if item[0][1].startswith("two-")]
    assert [value for _, value in points["train/stage"]] == [1, 1, 1, 2, 2]
    assert not any(math.isnan(value) for tag in points for _, value in points[tag])


@pytest.mark.slow
def test_workers_tell_their_runs(cli: Cli, study: Study, tmp_path: Path) -> None:
    path = study(methods=["mse", "simcse"], seeds=2, budget=BUDGET)
    code, _, err = cli("run", path, "--jobs", 2, "--log", "tensorboard", "--log-dir", tmp_path / "logs")
    assert code == 0, err
    found = written(tmp_path / "logs")
    check_all_told(found, tmp_path / "results" / "tiny")
    assert len(found) == 7


def test_runs_in_lock_step_are_told_apart(cli: Cli, study: Study, tmp_path: Path, wandb: Seen, trackio: Seen) -> None:
    code, _, err = cli("run", study(methods=["codir", "internal-kd"], budget=BUDGET), "--log", "wandb,trackio")
    assert code == 0, err
    check_all_told(wandb.points, tmp_path / "results" / "tiny")
    check_all_told(trackio.points, tmp_path / "results" / "tiny")
    assert {run["reinit"] for run in wandb.begun} == {"create_new"}


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_costs_no_run(
    cli: Cli, study: Study, tmp_path: Path, wandb: Seen, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SystemExit("no route to\nthe host")

    init = sys.modules["wandb"].init
    broken = lambda **given: SimpleNamespace(**{**init(**given).__dict__, where: fail})  # noqa: E731
    monkeypatch.setattr(sys.modules["wandb"], "init", fail if where == "init" else broken)
    path = study(methods=["mse"], budget=BUDGET)
    arguments = ("run", path, "--log", "wandb,tensorboard", "--log-dir", tmp_path / "logs")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(tracking._log, "warning", lambda text, *values: said.append(text % values))
        code, _, err = cli(*arguments)
    assert code == 0, err
    expected = "wandb cannot be written to (no route to the host); mse seed 1 goes on without it"
    assert said.count(expected) == 1 and len(said) == 3
    check_all_told(written(tmp_path / "logs"), tmp_path / "results" / "tiny")


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_tracker_that_is_missing_is_said_before_training(
    cli: Cli, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, out, err = cli("run", study(methods=["mse"]), "--log", "tensorboard,wandb", *more)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "--log wandb needs wandb, which cannot be imported" in err and "pip install wandb" in err
    code, out, err = cli("run", study(methods=["mse"]), "--log", "tensorbord", *more)
    assert (code, out) == (2, "") and "unknown tracker 'tensorbord'; did you mean 'tensorboard'?" in err
    assert not (tmp_path / "results" / "tiny").exists() and not (tmp_path / "logs").exists()


def test_a_server_that_does_not_answer_is_said_and_passed_over(
    cli: Cli, study: Study, tmp_path: Path, mlflow: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(sys.modules["mlflow.tracking"], "MlflowClient", refuse)
    said: list[str] = []
    monkeypatch.setattr(tracking._log, "warning", lambda text, *values: said.append(text % values))
    assert cli("run", study(methods=["mse"]), "--log", "mlflow")[0] == 0
    assert said[0] == "mlflow cannot be written to (nobody listens); nothing is tracked until it can"
    assert {record.status for record in read_study(tmp_path / "results" / "tiny")} == {"completed"}


def test_trackers_change_no_run(cli: Cli, study: Study, tmp_path: Path) -> None:
    path = study(methods=["mse"], budget=BUDGET)
    assert cli("run", path, "--log", "tensorboard", "--out", tmp_path / "a", "--log-dir", tmp_path / "logs")[0] == 0
    again = cli("run", path, "--out", tmp_path / "a")[2]
    assert again.count("found complete") == 3
