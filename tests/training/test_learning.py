"""Every method learns: on sentences that it has not seen, what it optimises is better after a small training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import distilbench.data.embedded
import distilbench_methods
from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.core.seeds import seed_for, seeded
from distilbench.models.encoder import Encoder
from distilbench.models.finding import PACKAGED_NAME, find_model
from distilbench.runs.prepare.inputs import Inputs, dims_for, make_inputs
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.budget import Budget, Ledger
from distilbench.study.study import Study
from distilbench.training.job import TrainingJob
from distilbench.training.loop import train
from distilbench.training.signals import SignalSource
from distilbench_methods.base import Method
from tests.conftest import store_for

GRADED = Path(distilbench.data.embedded.__file__).parent / "sts.tsv"
HELD_OUT_SHARE, BATCH, STEPS = 0.25, 16, 30
LATE = 0.99
"""A staged procedure has its layers behind it by then and optimises its final term."""
SMALL: dict[str, dict[str, Any]] = {
    # A queue that fills up makes the task harder as it goes.
    "ckd": {"queue_size": 0},
    "crd": {"num_negatives": 32},
    # The sharper the distributions over the few sentences of a batch, the more they are learnt by heart.
    "simdist": {"student_temperature": 0.1, "teacher_temperature": 0.05},
}
SLOW = {"codir-code": (100, 5e-4), "crd": (100, 5e-4)}
"""Steps and learning rate of methods whose normaliser, kept from the first batch, makes large steps overshoot."""
NAMES = [*distilbench_methods.registry(), "internal-kd-pid", "leaf", "mse-pca", "simcse-mlm"]
"""Every method, and the variants that train something else."""
OFTEN = {"mse", "ibkd", "codir", "internal-kd", "simcse", "margin-mse"}
"""One of each kind, and those that are named first."""


class Benches(NamedTuple):
    """The same study on two texts."""

    seen: Inputs
    unseen: Inputs


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """The real teacher, a small student, and the project's own sentences, a quarter of them held out."""
    try:
        find_model(PACKAGED_NAME)
    except UserError as error:
        pytest.skip(str(error))
    pairs = pd.read_csv(GRADED, sep="\t", quoting=3).sample(frac=1, random_state=0)
    cut = int(len(pairs) * HELD_OUT_SHARE)
    made = [_bench(tmp_path_factory.mktemp("learning"), part) for part in (pairs[cut:], pairs[:cut])]
    return Benches(*made)


def _bench(folder: Path, pairs: pd.DataFrame) -> Inputs:
    (folder / "text.txt").write_text("\n".join(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]])))
    alike = pairs[pairs["score"] >= 3].copy()
    alike["negative"] = np.roll(alike["sentence2"], 7)
    alike.to_csv(folder / "rows.csv", index=False)
    study = Study.model_validate(
        {
            "name": "learning",
            "teacher": PACKAGED_NAME,
            "student": {"layers": 2, "width": 96},
            # The sentences are those of an embedded task, which is not scored here.
            "text": {"source": str(folder / "text.txt"), "evaluation_text": "keep"},
            "labelled": {"source": str(folder / "rows.csv"), "columns": ["sentence1", "sentence2", "negative"]},
            "budget": {"steps": STEPS},
            "methods": [{name: SMALL.get(name, {})} for name in NAMES],
            "seeds": 1,
            "tasks": ["embedded"],
            "train": {"batch_size": BATCH, "max_length": 64},
        }
    )
    return make_inputs(study, Settings(out=folder, cache=folder / "cache", mirror=None, device="cpu"))


def held_out_loss(inputs: Inputs, method: Method, student: Encoder, aux: nn.ModuleDict) -> float:
    """What the method optimises on a batch of held-out rows; dropout is on where the method lives by it."""
    needs, rows_B = method.needs(dims_for(inputs, student)), np.arange(BATCH)
    store = store_for(inputs, needs)
    source = SignalSource(needs, student, as_model(inputs.teacher).encoder, inputs.text_of(needs), store, seed=5)
    store.ensure(source.sentences_read(0, rows_B))
    student.train(needs.student_views == 2)
    with seeded(1), torch.no_grad():
        signals = source(0, rows_B)
        # Banks know these sentences only after some visits.
        for _ in range(8):
            method.after_step(signals, aux, LATE)
        return float(sum(method.loss(signals, aux, LATE).values()))


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.thorough) for name in NAMES]
)
def test_it_learns(benches: Benches, name: str) -> None:
    seen, unseen = benches
    (entry,) = (entry for entry in seen.study.methods if entry.label == name)
    method = entry.stages[0].build()
    student = seen.students.build(1)
    needs = method.needs(dims_for(seen, student))
    with seeded(seed_for(1, "aux")):
        untrained_aux = method.build_aux(dims_for(seen, student))
    before = held_out_loss(unseen, method, student, untrained_aux)
    student = seen.students.build(1)
    job = TrainingJob(
        method=method,
        student=student,
        teacher=as_model(seen.teacher).encoder,
        text=seen.text_of(needs),
        store=store_for(seen, needs),
        spec=seen.study.train,
        budget=Budget("steps", STEPS),
        seed=1,
    )
    if name in SLOW:
        steps, rate = SLOW[name]
        spec = job.spec.model_copy(update={"learning_rate": rate})
        job = replace(job, spec=spec, budget=Budget("steps", steps))
    trained = train(job, Ledger())
    assert not trained.diverged
    assert held_out_loss(unseen, method, student, trained.aux) < before
