"""What a training works on, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from distilbench.data.labelled import Text
from distilbench.models.encoder import Encoder
from distilbench.study.budget import Budget
from distilbench.study.sections.training import TrainSpec
from distilbench.training.online import ALONE, Company
from distilbench.training.stores.vector_store import SignalStore
from distilbench_methods.base import Method


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the training by one method works on."""

    method: Method
    student: Encoder
    teacher: Encoder | None
    """Without weights where it runs on no batch; None where only its vectors are known, which are all in the store."""
    text: Text
    store: SignalStore
    spec: TrainSpec
    budget: Budget
    seed: int
    """A recipe's later stages have seeds of their own, derived from the run's."""
    company: Company = ALONE
    """Trainings on the same text that go on side by side with this one."""
    shared_tokens: bool = True
    """Whether student and teacher cut a text into the same tokens."""


@dataclass(frozen=True)
class Trained:
    """How training ended. `aux` holds the method's heads, of which some may ship."""

    aux: nn.ModuleDict
    diverged: bool
    curve: list[dict[str, float]]
    batches_sha256: str
    """Chained over the rows of all batches in their order: equal for all methods of a seed that read the same text."""
