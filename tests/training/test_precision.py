"""Scores in bf16 are near those in fp32, and never taken for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from distilbench.analysis.comparable import split
from distilbench.evaluation.calibration import compare
from distilbench.evaluation.score import TaskScore, score, score_key
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.models.embed import tokens_per_pass
from distilbench.models.finding import PACKAGED_NAME
from distilbench.models.model_folder import StoredModel
from distilbench.records.published import figures_of
from distilbench.records.record import Record, read_study
from distilbench.study.sections.training import Precision

Cli = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
IN_BF16 = "evaluation.precision=bf16"


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("DistilbenchSTS", None)


@pytest.fixture(scope="module")
def scored(teacher_folder: Path, task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskScore]:
    model, cache = StoredModel("teacher", teacher_folder), tmp_path_factory.mktemp("cache")
    return {how: score(model, [task], cache, "cpu", how)[0] for how in get_args(Precision)}


def test_similarities_are_near_those_in_fp32_but_others(scored: dict[str, TaskScore]) -> None:
    full, half = (scored[how].examples["similarity"].to_numpy() for how in ("fp32", "bf16"))
    # Eight bits of mantissa; two layers.
    assert np.abs(full - half).max() < 2**-5
    assert np.abs(full - half).max() > 0
    assert np.corrcoef(full, half)[0, 1] > 0.999


def test_their_keys_differ(scored: dict[str, TaskScore], teacher_folder: Path, task: Task) -> None:
    hashes = StoredModel("teacher", teacher_folder).hashes()
    assert scored["fp32"].key == score_key(hashes, task)
    assert scored["bf16"].key == score_key(hashes, task, precision="bf16") != scored["fp32"].key


def test_a_gpu_takes_larger_batches_and_its_scores_have_keys_of_their_own(teacher_folder: Path, task: Task) -> None:
    assert tokens_per_pass("cuda:1") == tokens_per_pass(torch.device("mps")) > tokens_per_pass("cpu")
    hashes = StoredModel("teacher", teacher_folder).hashes()
    assert score_key(hashes, task, "cuda") == score_key(hashes, task, "cuda:1") != score_key(hashes, task, "cpu")


def records(folder: Path) -> list[Record]:
    return read_study(folder / "results" / "tiny")


def test_runs_are_scored_again_and_not_trained_again(cli: Cli, study: Write, tmp_path: Path) -> None:
    assert cli("run", study())[0] == 0
    before = records(tmp_path)
    assert cli("run", study(), IN_BF16)[0] == 0
    after = records(tmp_path)
    assert [record.run_id for record in before] == [record.run_id for record in after]
    assert [record.identity.get("weights") for record in before] == [record.identity.get("weights") for record in after]
    assert {facts["precision"] for record in before for facts in record.tasks.values()} == {"fp32"}
    assert {facts["precision"] for record in after for facts in record.tasks.values()} == {"bf16"}
    assert split(before)[1] == {}
    assert "precision of DistilbenchSTS" in split([*before, *after])[1]
    # What is there in fp32 is found again.
    assert cli("run", study())[0] == 0
    assert [record.scores for record in records(tmp_path)] == [record.scores for record in before]


def test_the_gate_refuses_another_precision_and_scores_models_in_the_baselines(
    cli: Cli, study: Write, tmp_path: Path
) -> None:
    assert cli("run", study())[0] == 0
    baseline, in_half = tmp_path / "fp32.json", tmp_path / "bf16.json"
    assert cli("check", "results/tiny", "--baseline", baseline, "--bless")[0] == 0
    assert cli("run", study(), IN_BF16)[0] == 0
    code, out, err = cli("check", "results/tiny", "--baseline", baseline)
    assert code == 3, (out, err)
    assert "precision differ" in out + err
    assert cli("check", "results/tiny", "--baseline", in_half, "--bless")[0] == 0
    (student,) = [record for record in records(tmp_path) if record.role == "method"]
    code, out, err = cli("check", tmp_path / "cache" / "runs" / student.run_id / "model", "--baseline", in_half)
    assert code == 0, (out, err)
    assert "precision" not in out + err


def test_a_teacher_in_bf16_may_differ_more_from_its_published_scores() -> None:
    known = figures_of(PACKAGED_NAME, "")
    scores = {name: {figure.task.metric: figure.score + 1e-3} for name, figure in known.items()}
    sizes = {name: figure.task.examples or 1 for name, figure in known.items()}
    assert known
    assert not any(item.agrees for item in compare(known, scores, sizes))
    assert all(item.agrees for item in compare(known, scores, sizes, "bf16"))
