"""What makes a training fast leaves its result alone: sentence-transformers' trainer ends at the same student."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

from distilbench.core.libraries import quiet_libraries
from distilbench.core.machine import Settings
from distilbench.core.seeds import seed_for
from distilbench.data.batches import BatchOrder
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.embed import embed
from speed import rival
from speed.setting import SEED, RaceOptions, Setting, setting
from speed.training import METHODS, OURS, contestants, rival_of

BATCH, STEPS = 8, 50


@pytest.fixture(scope="module")
def still(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher without dropout, whose draws two programs would make in different ways."""
    folder = tmp_path_factory.mktemp("still") / "teacher"
    shutil.copytree(teacher_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    changed = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert all(config[name] > value for name, value in changed.items())
    (folder / "config.json").write_text(json.dumps(config | changed), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(still: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    options = RaceOptions(
        parts=("train",),
        teacher=str(still),
        shape=None,
        layers=2,
        width=None,
        text=str(text_file),
        sentences=BATCH * STEPS,
        batch_size=BATCH,
        rounds=1,
        tasks=("DistilbenchSTS",),
        learning_rate=1e-3,
        precision="fp32",
    )
    place = tmp_path_factory.mktemp("neutral")
    with setting(options, Settings(out=place, cache=place / "cache", mirror=None, device="cpu")) as found:
        yield found


class _Fixed:
    """Batches that are given, as the trainer takes them."""

    def __init__(self, batches: list[list[int]]) -> None:
        self._batches = batches

    def __call__(self, dataset: Any, batch_size: int, drop_last: bool, generator: Any = None, **_: Any) -> Any:
        from torch.utils.data import BatchSampler

        batches = self._batches

        class Sampler(BatchSampler):
            def __init__(self) -> None:
                self.batch_size, self.drop_last = batch_size, drop_last

            def __iter__(self) -> Iterator[list[int]]:
                return iter(batches)

            def __len__(self) -> int:
                return len(batches)

            def set_epoch(self, epoch: int) -> None:
                pass

        return Sampler()


@pytest.fixture
def clipped_by_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's norm leaves out what belongs to the loss; here that is CKD's scale, which is a single number."""
    clip = torch.nn.utils.clip_grad_norm_

    def without_numbers(parameters: Iterable[torch.Tensor], *rest: Any, **named: Any) -> torch.Tensor:
        return clip([parameter for parameter in parameters if parameter.dim()], *rest, **named)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", without_numbers)


@pytest.mark.usefixtures("clipped_by_the_student")
@pytest.mark.parametrize("method", METHODS)
def test_the_trainer_ends_at_the_same_student(made: Setting, method: str) -> None:
    with warnings.catch_warnings():
        # The rival's libraries warn of each other.
        warnings.simplefilter("ignore")
        quiet_libraries()
        inputs = made.inputs([METHODS[method]])
        theirs, make_loss = rival_of(made, inputs, method)
        order = BatchOrder(inputs.text.corpus.lengths(), BATCH, seed_for(SEED, "batches"))
        sampler = _Fixed([order[step].tolist() for step in range(STEPS)])
        ours = contestants(made, method)[OURS](0)()
        other = theirs.contestant(make_loss, batch_sampler=sampler)(0)()
    texts = made.sentences[:64]
    untrained = rival.encode(rival.load(made.student_folder, "cpu"), texts)
    found = [embed(ours, load_tokenizer(made.teacher.folder), texts), rival.encode(other, texts), untrained]
    mine, same, before = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in found)
    assert np.abs(mine - before).max() > 0.01
    assert np.abs(mine - same).max() < 1e-5
