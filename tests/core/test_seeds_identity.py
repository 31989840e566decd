"""Named random streams, and keys."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from distilbench.core.hashes import folder_sha256, key_of
from distilbench.core.seeds import preserved_rng, seed_for, seeded
from distilbench.data.batches import BATCHES_PER_POOL, LEAST_POOLS
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.prepared import prepare_run
from distilbench.study.study import Study, runs_of


def test_streams_are_distinct_and_stable() -> None:
    seeds = [
        seed_for(run, stream) for run in (1, 2) for stream in ("student", "aux", "dropout", "batches", "negatives")
    ]
    assert len(set(seeds)) == 10
    assert seed_for(1, "student") == seeds[0]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_global_generators_come_back_as_they_were() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with preserved_rng():
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
    with seeded(9):
        torch.rand(3)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize(("initialised", "expected"), [(False, []), (True, [3])])
def test_only_the_device_in_use_is_forked(
    monkeypatch: pytest.MonkeyPatch, initialised: bool, expected: list[int]
) -> None:
    asked: list[list[int]] = []

    def fork_rng(devices: list[int]) -> AbstractContextManager[None]:
        asked.append(devices)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialised)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(torch, "manual_seed", lambda _: None)
    with preserved_rng(), seeded(1):
        pass
    assert asked == [expected, expected]


def test_keys_depend_on_values_not_on_order() -> None:
    assert key_of(a=1, b={"c": 2, "d": 3}) == key_of(b={"d": 3, "c": 2}, a=1)
    assert key_of(a=1) != key_of(a=2) != key_of(b=2)
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of(a=float("nan"))


def test_a_folders_hash_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.txt").write_text("2")
    first = folder_sha256(tmp_path, ("*.json",))
    (tmp_path / "b.txt").write_text("3")
    assert folder_sha256(tmp_path, ("*.json",)) == first
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    assert folder_sha256(tmp_path, ("*.json",)) != first


def test_only_runs_on_small_texts_state_how_many_batches_are_sorted_together(inputs: Inputs) -> None:
    def pools(sentences: int, method: str = "mse") -> object:
        changed = {**inputs.study.model_dump(exclude_unset=True), "methods": [method]}
        changed["text"] = {**changed["text"], "sentences": sentences}
        changed["labelled"] = {**changed["labelled"], "rows": sentences}
        study = Study.model_validate(changed)
        run = next(run for run in runs_of(study) if run.role == "method")
        return prepare_run(make_inputs(study, inputs.settings), run).identity.get("batches_per_pool")

    size = inputs.study.train.batch_size
    large = LEAST_POOLS * BATCHES_PER_POOL * size
    for method in ("mse", "simcse-supervised"):
        assert [pools(count, method) for count in (large, large - 1, 8 * size)] == [None, [31], [2]]


def test_the_id_of_a_run_stays_when_the_text_is_built(inputs: Inputs) -> None:
    few = {"limit": 100, "methods": ["mse", "simcse-supervised"]}
    sized = make_inputs(Study.model_validate({**inputs.study.model_dump(exclude_unset=True), **few}), inputs.settings)
    runs = [run for run in runs_of(sized.study) if run.role == "method"]
    before = [prepare_run(sized, run).id for run in runs]
    assert sized.labelled is not None
    assert len(sized.text.corpus) == len(sized.labelled.text) == 100
    assert [prepare_run(make_inputs(sized.study, sized.settings), run).id for run in runs] == before
