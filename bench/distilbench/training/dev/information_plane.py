"""The information plane: how much a student's vectors tell about the teacher's, and how much about their input.

Two measures of each, on held-out sentences. `hsic_...`: the Hilbert-Schmidt independence criterion with Gaussian
kernels of median width, divided by that of each side with itself (Gretton et al. 2005; kernel CKA in Kornblith et al.
2019, arXiv:1905.00414, eq. 3): 0 for independence, 1 for the same geometry. `nce_...`: the InfoNCE lower bound on
mutual information in nats (van den Oord et al. 2018, arXiv:1807.03748, eq. 5), whose critic is a ridge regression
from the student's vectors onto the others, fitted and chosen on other sentences than it is measured on.

The input is the teacher's embedding block, mean-pooled: the same for every student, whatever its own embeddings become.
Shapes: N sentences, S student width, D teacher width, M targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

MOST = 1500
"""Sentences at most: the kernels are N x N."""
FEWEST = 90
"""Below this nothing is estimated."""
RIDGES = (1e-3, 1e-2, 1e-1)
"""Of the mean eigenvalue of the student's covariance."""
TEMPERATURES = (0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """What students are measured against: the teacher's vectors and its pooled input, [N, D] each."""

    teacher_ND: Array
    input_ND: Array

    def place(self, student_NS: Array) -> dict[str, float]:
        """A student's place by both measures; empty for vectors that do not vary, and for too few sentences.

        `nce_limit` is the most that the bound can reach with these sentences, log of their number.
        """
        if len(student_NS) < FEWEST or not np.isfinite(student_NS).all() or not np.ptp(student_NS, axis=0).any():
            return {}
        kernel_NN = centred_kernel(student_NS)
        teacher_NN, input_NN = self._kernels
        return {
            "hsic_teacher": alignment(kernel_NN, teacher_NN),
            "hsic_input": alignment(kernel_NN, input_NN),
            "nce_teacher": nce_bound(student_NS, self.teacher_ND),
            "nce_input": nce_bound(student_NS, self.input_ND),
            "nce_limit": float(np.log(len(student_NS[2::3]))),
        }

    @cached_property
    def _kernels(self) -> tuple[Array, Array]:
        return centred_kernel(self.teacher_ND), centred_kernel(self.input_ND)


def centred_kernel(x_NS: Array) -> Array:
    """Gaussian kernel matrix, its width from the median squared distance, rows and columns centred."""
    norms_N = (x_NS**2).sum(axis=1)
    squared_NN = np.maximum(norms_N[:, None] + norms_N - 2 * x_NS @ x_NS.T, 0.0)
    np.fill_diagonal(squared_NN, 0.0)
    median = float(np.median(squared_NN[np.triu_indices(len(x_NS), k=1)]))
    kernel_NN = np.exp(-squared_NN / (2 * median if median > 0 else 1.0))
    centred = kernel_NN - kernel_NN.mean(axis=0)
    return np.asarray(centred - centred.mean(axis=1, keepdims=True))


def alignment(one_NN: Array, other_NN: Array) -> float:
    """Cosine of two centred kernel matrices."""
    return float((one_NN * other_NN).sum() / (np.linalg.norm(one_NN) * np.linalg.norm(other_NN)))


def nce_bound(student_NS: Array, other_NM: Array) -> float:
    """InfoNCE bound in nats: a third of the sentences fits the critic, a third chooses it, a third is measured."""
    (fit, choose, measure), (fit_to, choose_to, measure_to) = (
        [side[part::3] for part in range(3)] for side in (student_NS, other_NM - other_NM[0::3].mean(axis=0))
    )
    critics = []
    for ridge in RIDGES:
        weights_SM = _ridge_regression(fit - fit.mean(axis=0), fit_to, ridge)
        for temperature in TEMPERATURES:
            scored = _bound((choose - fit.mean(axis=0)) @ weights_SM, choose_to, temperature)
            critics.append((scored, temperature, weights_SM))
    _, temperature, weights_SM = max(critics, key=lambda critic: critic[0])
    return _bound((measure - fit.mean(axis=0)) @ weights_SM, measure_to, temperature)


def _ridge_regression(x_NS: Array, y_NM: Array, ridge: float) -> Array:
    covariance_SS = x_NS.T @ x_NS
    penalty = ridge * np.trace(covariance_SS) / len(covariance_SS)
    return np.linalg.solve(covariance_SS + penalty * np.eye(len(covariance_SS)), x_NS.T @ y_NM)


def _bound(predicted_NM: Array, actual_NM: Array, temperature: float) -> float:
    """log N less the mean cross-entropy of finding each row's own among all, by cosine."""
    logits_NN = _unit(predicted_NM) @ _unit(actual_NM).T / temperature
    own_N = np.diagonal(logits_NN)
    return float(np.log(len(own_N)) + (own_N - logsumexp(logits_NN, axis=1)).mean())


def _unit(x_NM: Array) -> Array:
    lengths = np.linalg.norm(x_NM, axis=1, keepdims=True)
    return np.asarray(x_NM / np.where(lengths > 0, lengths, 1.0))
