"""What a node of a cluster does with a run, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path

from distilbench.core.errors import UserError
from distilbench.runs.engines.layout import Layout
from distilbench.runs.engines.on_ray import _room
from distilbench.runs.engines.ray_task import TaskOrder, _inputs, execute, installed
from distilbench.runs.prepare.inputs import Inputs
from distilbench.runs.run import FINISH, Finished
from distilbench.study.study import runs_of


class Board:
    """In the place of the actor's handle, whose methods have a `remote`."""

    def __init__(self) -> None:
        self.report, self.shares = self, list[float]()

    def remote(self, _task: int, share: float) -> None:
        self.shares.append(share)


def test_a_node_executes_a_run_and_tells_how_far_it_is(inputs: Inputs, tmp_path: Path) -> None:
    study = inputs.study.model_copy(update={"methods": inputs.study.methods[:1], "tasks": ["DistilbenchSTS"]})
    order, board = TaskOrder(study, inputs.settings, Layout(1, 1), FINISH, tmp_path, installed()), Board()
    answer = execute(pickle.dumps(order), runs_of(study)[-1], board, 0)
    _inputs.cache_clear()
    assert isinstance(answer, Finished)
    assert (answer.record.status, answer.record.label) == ("completed", study.methods[0].label)
    assert board.shares[0] == 0.0


def test_a_node_with_other_versions_ends_the_study(inputs: Inputs, tmp_path: Path) -> None:
    order = TaskOrder(inputs.study, inputs.settings, Layout(1, 1), FINISH, tmp_path, installed() | {"torch": "1.0"})
    answer = execute(pickle.dumps(order), runs_of(inputs.study)[-1], Board(), 0)
    assert isinstance(answer, UserError)
    assert "instead of 1.0; install the driver's versions there" in str(answer)
    _inputs.cache_clear()


def test_a_node_takes_as_many_runs_as_fit_on_it() -> None:
    assert _room({"CPU": 8.0}, Layout(1, 3), on_gpu=False) == 2
    assert _room({"CPU": 8.0, "GPU": 2.0}, Layout(1, 1, gpu_share=0.3), on_gpu=True) == 6
    assert _room({"CPU": 4.0, "GPU": 2.0}, Layout(1, 2, gpu_share=0.25), on_gpu=True) == 2
    assert _room({"CPU": 8.0}, Layout(1, 1), on_gpu=True) == 0
