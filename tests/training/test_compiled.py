"""A student whose blocks are compiled learns what a plain one learns, and is a plain one again afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distilbench.core.errors import UserError
from distilbench.models.encoder import Encoder, layer_stack
from distilbench.study.budget import Budget, Ledger
from distilbench.training.compiled import compiled
from distilbench.training.job import TrainingJob
from distilbench.training.loop import train

MakeJob = Callable[..., TrainingJob]
STEPS = 50

# What torch's compiler does on the way, and does not show to its users.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning"
)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Graphs that are traced and differentiated ahead of time, but run by torch itself: a compiler takes minutes."""
    from torch._dynamo.backends.debugging import aot_eager

    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any, **_: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return graphs


def with_(job: TrainingJob, **chosen: Any) -> TrainingJob:
    """A job without dropout, trained with some choices."""
    for module in job.student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return replace(job, spec=job.spec.model_copy(update=chosen))


def weights(model: Encoder) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def vectors(job: TrainingJob) -> Tensor:
    """What the student makes of some of the text. Weights without effect, as the keys' biases, follow rounding."""
    ids, mask = job.text.corpus.batch(np.arange(20))
    with torch.inference_mode():
        found: Tensor = job.student(ids, mask).final
    return found


# Attention maps and scores, taken from inside of the blocks; pooled layers, read by hooks on them.
@pytest.mark.parametrize("name", ["internal-kd", pytest.param("codir", marks=pytest.mark.thorough)])
@pytest.mark.no_cover
def test_fifty_steps_end_at_the_same_student(make_job: MakeJob, traced: list[torch.fx.GraphModule], name: str) -> None:
    students, losses = [], []
    for how in (None, "default"):
        job = with_(make_job(name, budget=Budget("steps", STEPS)), compile=how)
        assert not traced
        found = train(job, Ledger())
        students.append(vectors(job))
        losses.append([row["loss"] for row in found.curve])
    assert traced
    torch.testing.assert_close(students[0], students[1], atol=1e-5, rtol=0)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_blocks_are_plain_outside_of_it(make_job: MakeJob, traced: list[torch.fx.GraphModule]) -> None:
    student = make_job("mse").student
    _, blocks = layer_stack(student.backbone)
    names = list(student.state_dict())
    with compiled(student, "default"):
        assert all("forward" in vars(block) for block in blocks)
        assert list(student.state_dict()) == names
    assert not any("forward" in vars(block) for block in blocks)
    with compiled(student, None):
        assert not any("forward" in vars(block) for block in blocks)


@pytest.mark.no_cover
def test_parts_of_a_batch_are_not_compiled(make_job: MakeJob, traced: list[torch.fx.GraphModule]) -> None:
    def trained(**chosen: Any) -> Tensor:
        job = with_(make_job("mse", budget=Budget("steps", 2)), micro_batch=4, **chosen)
        train(job, Ledger())
        return weights(job.student)

    assert torch.equal(trained(), trained(compile="default"))
    assert not traced


def test_a_machine_that_cannot_compile_is_told(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    job = with_(make_job("mse", budget=Budget("steps", 1)), compile="default")
    with pytest.raises(UserError, match=r"train\.compile default: .*no C\+\+ compiler was found.*leave train\.compile"):
        train(job, Ledger())
