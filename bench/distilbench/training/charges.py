"""What a step costs, in the ledger's terms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilbench.study.budget import Ledger
from distilbench.training.job import TrainingJob
from distilbench_methods.base import Dims, Needs

FORWARD_AND_BACKWARD, CACHED = 3, 4
"""Passes' worth of a step: backward costs two forward; gradient caching passes forward once more."""


def charge_step(
    ledger: Ledger, job: TrainingJob, needs: Needs, dims: Dims, rows_B: NDArray[np.int64], *, in_parts: bool
) -> None:
    """Charge a step over some rows, but for what it reads from the store; `in_parts` is gradient caching."""
    sentences = job.text.sentences(rows_B, 1 + needs.candidates).ravel()
    num_tokens = job.text.corpus.width(sentences)
    passes = len(sentences) + len(rows_B) * (needs.student_views - 1 + needs.masked_tokens)
    price = CACHED if in_parts else FORWARD_AND_BACKWARD
    ledger.steps += 1
    ledger.sentences += len(sentences)
    ledger.tokens += job.text.corpus.num_tokens(sentences)
    ledger.student_passes += passes
    ledger.student_flops += price * job.student.forward_flops(passes, num_tokens)
    ledger.student_flops += job.method.extra_flops(dims, len(rows_B), num_tokens)
    if needs.teacher_online:
        assert job.teacher is not None, "methods that look inside the teacher are refused where there is none"
        ledger.teacher_sentences_online += len(rows_B)
        ledger.teacher_flops_online += job.teacher.forward_flops(len(rows_B), num_tokens)


def charge_stored(ledger: Ledger, job: TrainingJob, sentences: NDArray[np.int64]) -> None:
    """Charge the reading of stored signals with what computing them would have cost, where that is known."""
    if not len(sentences):
        return
    ledger.teacher_sentences_stored += len(sentences)
    if job.teacher is None or ledger.teacher_flops_stored is None:
        ledger.teacher_flops_stored = None
        return
    mean_length = round(job.store.corpus.num_tokens(sentences) / len(sentences))
    ledger.teacher_flops_stored += job.teacher.forward_flops(len(sentences), mean_length)
