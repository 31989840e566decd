"""Label-free checks of a model's vectors of the pinned texts against those of the blessed model. Pure functions.

Shapes: N texts, W width. Two questions are asked. Are these vectors what any sound model gives: finite, not collapsed,
as long as the blessed model's, the same in any company? And are they the blessed model's own vectors, up to the noise
of floating point? The second only fails a candidate that claims to be the blessed model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]

NEIGHBOURS = 10
KEPT = f"share of {NEIGHBOURS} neighbours kept"
COSINE_LOSS = 3e-6
"""Most that 1 - cosine may be between two runs of one model. Rounding to half precision, as vectors are stored, makes
at most 1.2e-7 (a relative error of 2^-11), float32 arithmetic far less; weights in half precision make 1e-7 (two
layers) to 1e-6 (six), weights rounded to bfloat16 1e-5 to 6e-5."""
NORM_CHANGE = 2e-3
"""Relative; rounding to half precision makes at most 5e-4."""
NEIGHBOURS_KEPT = 0.98
VARIANCE_CHANGE = 0.05
"""Relative, of any dimension that is not constant: 320 rounded values keep their variance far better."""
COMPANY = 1e-3
"""Relative change of a vector by what else is in its batch: about 1e-6 in float32; more is a mistake in padding."""
CLOSENESS = ("cosine", "norm", "neighbours", "variance")
"""Findings on how near a candidate is to the blessed model; the others hold for any sound model."""
UNIT = 1e-3
FEWER_DIMENSIONS = 0.5
CONSTANT = 1e-8
"""Variance of a dimension, relative to the median dimension's, under which it carries nothing."""
UNRELATED = 0.1
"""Neighbours in common with the blessed model under which a model has nothing to do with it. Rows in a wrong order keep
0.02 to 0.03, as by chance; students of one teacher by other methods 0.5 or more; a teacher and its student 0.2."""


@dataclass(frozen=True)
class Finding:
    """One check: what was measured, and the bound that it has to keep."""

    name: str
    value: float
    bound: float
    at_most: bool
    what: str

    @property
    def holds(self) -> bool:
        """Whether the bound is kept; what is no number keeps none."""
        return bool(self.value <= self.bound if self.at_most else self.value >= self.bound)

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3g} instead of {'at most' if self.at_most else 'at least'} {self.bound:.3g}"


def at_most(name: str, value: float, bound: float, what: str) -> Finding:
    """A check that a value must not exceed a bound."""
    return Finding(name, value, bound, True, what)


def at_least(name: str, value: float, bound: float, what: str) -> Finding:
    """A check that a value must reach a bound."""
    return Finding(name, value, bound, False, what)


def drift(now_NW: Vectors, again_NW: Vectors, blessed_NW: Vectors, *, same: bool) -> list[Finding]:
    """All checks of a candidate's vectors.

    `again_NW`: the same texts in another order and other batches, put back in order. `same`: whether the candidate
    claims to be the blessed model. The findings that make further ones meaningless come alone.
    """
    now, again, blessed = (np.asarray(part, dtype=np.float64) for part in (now_NW, again_NW, blessed_NW))
    for vectors in (now, again):
        if vectors.shape != blessed.shape:
            what = f"arrays of other than {blessed.shape[0]} texts x {blessed.shape[1]} numbers (here {vectors.shape})"
            return [at_most("shape", 1, 0, what)]
    bad = float((~np.isfinite(now)).any(axis=1).mean())
    if bad:
        return [at_most("finite", bad, 0, "share of texts whose vector has a value that is no number")]
    return [*_sound(now, again, blessed), *(_equal(now, blessed) if same else _related(now, blessed))]


def _sound(now: Array, again: Array, blessed: Array) -> list[Finding]:
    norms, lengths = _norms(now), _norms(blessed)
    company = float((_norms(now - again) / np.maximum(norms, 1e-12)).max())
    dimensions = effective_dimensions(now) / effective_dimensions(blessed)
    constant, blessed_constant = float(_constant(now).sum()), float(_constant(blessed).sum())
    findings = [
        at_most("company", company, COMPANY, "change of a vector with the order of the texts and their batches"),
        at_least(
            "dimensions",
            dimensions,
            FEWER_DIMENSIONS,
            "effective dimensions, relative to the baseline's (a collapse has few)",
        ),
        at_most("constant", constant, blessed_constant, "dimensions that are the same for every text"),
        at_most("equal", _repeated(now), _repeated(blessed), "texts with the vector of another text"),
    ]
    if np.abs(lengths - 1).max() <= UNIT:
        findings.append(at_most("unit", float(np.abs(norms - 1).max()), UNIT, "distance of a vector's length from 1"))
    return findings


def _equal(now: Array, blessed: Array) -> list[Finding]:
    loss = 1 - (_unit(now) * _unit(blessed)).sum(axis=1)
    change = np.abs(_norms(now) / np.maximum(_norms(blessed), 1e-12) - 1)
    alive = ~_constant(blessed)
    spread = np.abs(now.var(axis=0)[alive] / blessed.var(axis=0)[alive] - 1)
    variance = "largest relative change of a dimension's variance"
    return [
        at_most("cosine", float(loss.max()), COSINE_LOSS, "largest 1 - cosine with the baseline's vector"),
        at_most("norm", float(change.max()), NORM_CHANGE, "largest relative change of a vector's length"),
        at_least("neighbours", neighbours_kept(now, blessed), NEIGHBOURS_KEPT, KEPT),
        at_most("variance", float(spread.max(initial=0)), VARIANCE_CHANGE, variance),
    ]


def _related(now: Array, blessed: Array) -> list[Finding]:
    return [at_least("neighbours", neighbours_kept(now, blessed), UNRELATED, KEPT)]


def order_is_lost(now_NW: Vectors, blessed_NW: Vectors) -> bool:
    """Whether the vectors are the blessed ones in another order."""
    cosines = _unit(np.asarray(now_NW, dtype=np.float64)) @ _unit(np.asarray(blessed_NW, dtype=np.float64)).T
    return bool((1 - cosines.max(axis=1)).max() <= COSINE_LOSS < (1 - cosines.diagonal()).max())


def effective_dimensions(x_NW: Array) -> float:
    """Participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2: from 1 to W; 0 if nothing varies."""
    centred = x_NW - x_NW.mean(axis=0)
    small = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    squares = float((small**2).sum())
    return float(np.trace(small)) ** 2 / squares if squares else 0.0


def neighbours_kept(one_NW: Array, other_NW: Array, count: int = NEIGHBOURS) -> float:
    """Mean share of each text's nearest others, by cosine, that both sets of vectors agree on."""
    one, other = _nearest(one_NW, count), _nearest(other_NW, count)
    return float(np.mean([len(set(a) & set(b)) / count for a, b in zip(one, other, strict=True)]))


def _nearest(x_NW: Array, count: int) -> npt.NDArray[np.int64]:
    unit = _unit(x_NW)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def _norms(x_NW: Array) -> Array:
    norms: Array = np.linalg.norm(x_NW, axis=1)
    return norms


def _unit(x_NW: Array) -> Array:
    unit: Array = x_NW / np.maximum(_norms(x_NW), 1e-12)[:, None]
    return unit


def _constant(x_NW: Array) -> npt.NDArray[np.bool_]:
    variance = x_NW.var(axis=0)
    constant: npt.NDArray[np.bool_] = variance <= CONSTANT * np.median(variance)
    return constant


def _repeated(x_NW: Array) -> int:
    """Texts whose vector an earlier text has already, to the last digit that is kept in half precision."""
    return len(x_NW) - len(np.unique(x_NW.astype(np.float16), axis=0))
