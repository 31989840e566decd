"""`precision: auto`: measured once for a machine, part of a run's identity, and said in records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.records.record import Record, read_study
from distilbench.runs.prepare import precision as precision_module
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.precision import automatic, bf16_speedup, resolved
from distilbench.runs.prepare.prepared import prepare_run
from distilbench.study.study import Study, runs_of
from tests.conftest import Cli, Writes

Measures = Callable[[float], list[str]]


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measures]:
    """A machine that multiplies bf16 so many times as fast; gives the list of the devices that were measured."""
    asked: list[str] = []

    def set_up(speedup: float) -> list[str]:
        def measure(device: str) -> float:
            asked.append(device)
            return speedup

        monkeypatch.delenv(precision_module.VARIABLE, raising=False)
        monkeypatch.setattr(precision_module, "bf16_speedup", measure)
        precision_module._measured.cache_clear()
        return asked

    yield set_up
    precision_module._measured.cache_clear()


def records(folder: Path) -> dict[str, Record]:
    return {record.role: record for record in read_study(folder)}


@pytest.mark.parametrize(("speedup", "expected"), [(2.5, "bf16"), (1.3, "bf16"), (1.29, "fp32"), (0.2, "fp32")])
def test_bf16_where_it_multiplies_faster(measures: Measures, tmp_path: Path, speedup: float, expected: str) -> None:
    asked = measures(speedup)
    assert automatic("cpu", tmp_path) == expected
    precision_module._measured.cache_clear()
    measures(0.0)
    assert automatic("cpu", tmp_path) == expected
    assert asked == ["cpu"], "what was measured is remembered for this machine"


def test_the_variable_decides_where_it_is_set(
    measures: Measures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measures(9.0)
    monkeypatch.setenv(precision_module.VARIABLE, "fp32")
    assert automatic("cpu", tmp_path) == "fp32" and not asked
    monkeypatch.setenv(precision_module.VARIABLE, "fp16")
    with pytest.raises(UserError, match="DISTILBENCH_PRECISION: unknown precision 'fp16'; did you mean 'bf16'"):
        automatic("cpu", tmp_path)


def test_a_real_measurement_leaves_random_state_alone() -> None:
    state = torch.get_rng_state()
    assert 0.01 < bf16_speedup("cpu") < 100
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_asked_for_is_not_measured(measures: Measures, tmp_path: Path, inputs: Inputs) -> None:
    asked = measures(9.0)
    fixed = {"train": {"precision": "fp32"}, "evaluation": {"precision": "bf16"}}
    values: dict[str, Any] = {**inputs.study.model_dump(exclude_unset=True), "methods": ["mse"], **fixed}
    values["teacher"] = {"model": "x", "dtype": "fp32"}
    study = resolved(Study.model_validate(values), "cpu", tmp_path)
    assert (study.train.precision, study.evaluation.precision) == ("fp32", "bf16") and not asked
    values["teacher"] = {"joined": ["x", {"model": "y", "dtype": "fp32"}, {"vectors": "z.parquet"}]}
    values["student"] = {"model": "x"}
    teacher = resolved(Study.model_validate(values), "cpu", tmp_path).teacher
    assert not isinstance(teacher, str) and teacher.joined is not None
    found = [member if isinstance(member, str) else member.dtype for member in teacher.joined]
    assert found == ["bf16", "fp32", "auto"]


def test_runs_of_other_precisions_are_other_runs(measures: Measures, inputs: Inputs, tmp_path: Path) -> None:
    ids = []
    for speedup in (0.5, 2.0):
        measures(speedup)
        settings = Settings(out=tmp_path, cache=tmp_path / str(speedup), mirror=None, device="cpu")
        values = inputs.study.model_dump(exclude={"methods", "train", "evaluation"}, exclude_unset=True)
        study = Study.model_validate({**values, "methods": ["mse"], "teacher": str(_folder(inputs))})
        made = make_inputs(study, settings)
        ids.append([prepare_run(made, run).id for run in runs_of(study)])
    assert not set(ids[0]) & set(ids[1])


def _folder(inputs: Inputs) -> Any:
    teacher = inputs.study.teacher
    return teacher if isinstance(teacher, str) else teacher.model


@pytest.mark.parametrize(("speedup", "expected"), [(2.0, "bf16"), (0.5, "fp32")])
def test_records_and_reports_say_which(
    measures: Measures, cli: Cli, study: Writes, tmp_path: Path, speedup: float, expected: str
) -> None:
    measures(speedup)
    code, _, err = cli("run", study(calibrate=False), "--out", tmp_path / "out")
    assert code == 0, err
    found = records(tmp_path / "out" / "tiny")
    assert found["method"].train["precision"] == expected
    assert {facts["precision"] for record in found.values() for facts in record.tasks.values()} == {expected}
    code, _, err = cli("report", tmp_path / "out" / "tiny", "--out", tmp_path / "reports")
    assert code == 0, err
    assert f"precision {expected}" in (tmp_path / "reports" / "tiny" / "index.html").read_text(encoding="utf-8")
