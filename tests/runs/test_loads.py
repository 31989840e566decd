"""A study reads its teacher's weights once, and not at all where what they give is stored."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import distilbench.core.hashes as hashes
from distilbench.data import stored_model
from distilbench.data.stored_model import weights_sha256
from distilbench.models import cutting, model_folder
from distilbench.models.encoder import Encoder
from distilbench.runs import cost, plan
from distilbench.runs.prepare import students

Cli = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, teacher_folder: Path) -> Counter[str]:
    """How often the teacher's weights are read or hashed, and students and their directions are made."""
    found: Counter[str] = Counter()
    # Other tests of this process may have read the same folder.
    stored_model._weights_sha256.cache_clear()

    def count(owner: Any, name: str, what: str, *, of_teacher: bool = False) -> None:
        original = getattr(owner, name)

        def counting(first: Any, *values: Any, **named: Any) -> Any:
            if not of_teacher or (teacher_folder in (first, *first.parents) and first.suffix in ("", ".safetensors")):
                found[what] += 1
            return original(first, *values, **named)

        monkeypatch.setattr(owner, name, counting)

    count(model_folder, "_backbone", "loads", of_teacher=True)
    count(hashes, "file_sha256", "hashes", of_teacher=True)
    count(students, "build_student", "students")
    count(cutting, "leading_directions", "directions")
    return found


def test_a_study_makes_each_student_and_what_it_is_cut_along_once(
    cli: Cli, study: Write, counted: Counter[str]
) -> None:
    three = {"methods": ["mse", "simcse", "ckd"], "seeds": 2}
    assert cli("run", study(**three))[0] == 0
    # One without weights for its shape, one of each seed, and one that is never trained.
    assert counted["students"] <= 1 + 2 + 1
    assert counted["directions"] == counted["hashes"] == 1
    counted.clear()
    assert cli("run", study(**three))[0] == 0
    assert {what: counted[what] for what in ("loads", "directions", "hashes")} == dict.fromkeys(
        ("loads", "directions", "hashes"), 0
    )
    assert counted["students"] == 1
    counted.clear()
    # Stored signals serve another seed: the weights are read for what its student takes of them.
    assert cli("run", study(**three | {"seeds": 3}))[0] == 0
    assert (counted["loads"], counted["hashes"]) == (1, 0)


def test_changed_weights_are_hashed_anew(teacher_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    before = weights_sha256(folder)
    assert weights_sha256(folder) == before
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert weights_sha256(folder) != before


def test_a_dry_run_measures_each_number_of_threads_once(
    cli: Cli, study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def measure(_: Any) -> float:
        threads.append(torch.get_num_threads())
        return 1e9

    monkeypatch.setattr(plan, "flops_per_second", measure)
    before = torch.get_num_threads()
    assert cli("run", study(), "--dry-run")[0] == 0
    assert len(threads) == len(set(threads))
    assert before in threads
    assert torch.get_num_threads() == before


def test_a_dry_run_makes_one_student_and_passes_few_tokens_to_learn_its_speed(
    cli: Cli, study: Write, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, forward = cost.flops_per_second, Encoder.forward
    probing, passed = [False], [0]

    def watched(inputs: Any) -> float:
        probing[0] = True
        try:
            return measure(inputs)
        finally:
            probing[0] = False

    def counting(self: Encoder, ids: Any, *given: Any, **named: Any) -> Any:
        if probing[0]:
            passed.append(ids.numel())
        return forward(self, ids, *given, **named)

    monkeypatch.setattr(plan, "flops_per_second", watched)
    monkeypatch.setattr(Encoder, "forward", counting)
    assert cli("run", study(seeds=3, train={"batch_size": 64, "max_length": 64}), "--dry-run")[0] == 0
    # One without weights for its shape, and one that is tried and measured, whatever seeds there are.
    assert counted["students"] == 2
    assert 0 < max(passed) <= cost.PROBE_ROWS * cost.PROBE_TOKENS
