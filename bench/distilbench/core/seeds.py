"""Named random streams: every random choice draws from a seed of its own, derived from the run's seed by name."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

Stream = Literal["student", "aux", "dropout", "batches", "negatives", "fit"]


def seed_for(run_seed: int, stream: Stream) -> int:
    """A 63-bit seed for one stream of one run; streams of one run and of different runs are independent."""
    digest = hashlib.sha256(f"{run_seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stage_seed(run_seed: int, stage: int) -> int:
    """The seed of a recipe's stage, counted from 0; the first has the run's own, as if it stood alone."""
    if stage == 0:
        return run_seed
    return int.from_bytes(hashlib.sha256(f"{run_seed}/stage {stage}".encode()).digest()[:8], "big") >> 1


def _cuda_devices() -> list[int]:
    """The CUDA device in use, if any: torch would otherwise save, and start, all of them."""
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give the global generators of random, numpy and torch back as they were.

    mteb reseeds all of them whenever a task is made or evaluated; without this, runs of different seeds would draw
    the same numbers from then on.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_cuda_devices()):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch's global generators at `seed`, and restore them afterwards."""
    with torch.random.fork_rng(_cuda_devices()):
        torch.manual_seed(seed)
        yield


def generator_states() -> list[torch.Tensor]:
    """Where torch's global generators stand: the CPU's, and that of the CUDA device in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _cuda_devices())]


def set_generator_states(states: list[torch.Tensor]) -> None:
    """Put the generators back to where `generator_states` found them."""
    torch.set_rng_state(states[0])
    for device, state in zip(_cuda_devices(), states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)
