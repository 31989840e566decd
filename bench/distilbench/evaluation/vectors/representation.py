"""What a student's vectors are like, beside their scores: near the teacher's, spread out, small, fast.

All of it is measured on sentence pairs that come with distilbench and are in no training text of its own: the same
for every model. Shapes: N sentences, P pairs, S student width, D teacher width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from distilbench.data.tokens import tokenised
from distilbench.models.embed import batches, embed
from distilbench.models.encoder import Encoder, num_parameters

PAIRS = 200
"""Of the embedded STS set, evenly spread over it."""
NEIGHBOURS = 10
ALIKE = 4.0
"""Gold score, of 5, from which on a pair says the same: what alignment is measured on."""
FINAL = "final"
SHARES = (2, 4)
"""Vectors are cut to a half and a quarter of their components."""
QUERIES = 20

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The fixed sentences, and how alike pairs of them are."""

    texts: list[str]
    pairs_P2: NDArray[np.int64]
    gold_P: Array


@lru_cache(maxsize=1)
def sample() -> Sample:
    """Pairs of the embedded STS set."""
    with (files("distilbench.data.embedded") / "sts.tsv").open(encoding="utf-8") as stream:
        frame = pd.read_csv(stream, sep="\t", quoting=3)
    frame = frame.iloc[np.linspace(0, len(frame) - 1, PAIRS).astype(int)]
    places, texts = pd.factorize(frame[["sentence1", "sentence2"]].to_numpy(dtype=object).ravel())
    return Sample(list(texts), places.reshape(-1, 2).astype(np.int64), frame["score"].to_numpy(dtype=np.float64))


def views(model: Encoder, tokenizer: Any) -> dict[str, Array]:
    """A teacher's view of the fixed sentences: unit vectors as `final`, and `layer-0`, the embedding block, upwards."""
    layers = pooled_layers(model, tokenizer)
    return {FINAL: encode(model, tokenizer, sample().texts)} | {f"layer-{n}": found for n, found in enumerate(layers)}


def pooled_layers(model: Encoder, tokenizer: Any) -> list[Array]:
    """Mean-pooled hidden states of the fixed sentences, [N, width] each, the embedding block first."""
    tokens = tokenised(tokenizer, sample().texts, model.max_length)
    wanted = tuple(range(model.dims.layers + 1))
    found_LNW = np.empty((len(wanted), len(tokens), model.dims.width))
    with torch.inference_mode():
        for part in batches(tokens.lengths(), model.device):
            ids, mask = (tensor.to(model.device) for tensor in tokens.batch(part, tokenizer))
            pooled_BLW = model(ids, mask, layers=wanted).layers
            assert pooled_BLW is not None
            found_LNW[:, part] = pooled_BLW.double().cpu().numpy().transpose(1, 0, 2)
    return list(found_LNW)


def layer_similarity(student: list[Array], teacher: list[Array]) -> list[list[float | None]]:
    """Linear centred kernel alignment of each layer of the student (rows) with each of the teacher.

    None where one of the two does not vary.
    """
    found = [[cka(one, other) for other in teacher] for one in student]
    return [[value if np.isfinite(value) else None for value in row] for row in found]


def encode(model: Encoder, tokenizer: Any, texts: list[str]) -> Array:
    """Unit vectors of some texts, [N, width]."""
    return _unit(embed(model, tokenizer, texts).astype(np.float64))


def describe(student_NS: Array, teacher_ND: Array | None = None) -> dict[str, float]:
    """Everything that the vectors of the fixed sentences tell, by name; what needs equal widths only where they are.

    `cka`: linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414, eq. 3, 4). `neighbours`: share of
    each sentence's ten nearest that are the same as the teacher's. `similarities`: Spearman's correlation of all
    cosines with the teacher's. `anisotropy`: mean cosine of two sentences. `uniformity` and `alignment`: Wang and Isola
    2020, arXiv:2005.10242, with t = 2 and alpha = 2. `sts...`: Spearman's correlation of the pairs' cosines with their
    gold scores; `sts_asymmetric` has one side from the teacher.
    """
    pairs_P2, gold_P = sample().pairs_P2, sample().gold_P
    mine = student_NS @ student_NS.T
    above = np.triu_indices(len(mine), k=1)
    alike = pairs_P2[gold_P >= ALIKE]
    found = {
        "anisotropy": float(mine[above].mean()),
        # The squared distance of unit vectors is 2 - 2 cos.
        "uniformity": float(np.log(np.exp(-2 * (2 - 2 * mine[above])).mean())),
        "alignment": float((2 - 2 * mine[alike[:, 0], alike[:, 1]]).mean()),
        "sts": _sts(student_NS, student_NS),
        "sts_int8": _sts(*[int8(student_NS)] * 2),
        "sts_binary": _sts(*[np.where(student_NS > 0, 1.0, -1.0)] * 2),
    }
    for share in SHARES:
        cut = student_NS[:, : max(1, student_NS.shape[1] // share)]
        found[f"sts_1/{share}"] = _sts(cut, cut)
    if teacher_ND is not None:
        theirs = teacher_ND @ teacher_ND.T
        near = {
            "cka": cka(student_NS, teacher_ND),
            "neighbours": neighbour_overlap(mine, theirs),
            "similarities": _rank_correlation(mine[above], theirs[above]),
        }
        found = near | found
    if teacher_ND is not None and student_NS.shape == teacher_ND.shape:
        found["cosine"] = float((student_NS * teacher_ND).sum(axis=1).mean())
        found["sts_asymmetric"] = _sts(student_NS, teacher_ND)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def cka(x_NS: Array, y_ND: Array) -> float:
    """Linear centred kernel alignment, from 0 to 1; invariant to rotations and to a common scale."""
    x, y = x_NS - x_NS.mean(axis=0), y_ND - y_ND.mean(axis=0)
    within = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / within) if within > 0 else float("nan")


def neighbour_overlap(one_NN: Array, other_NN: Array, count: int = NEIGHBOURS) -> float:
    """Mean share of each row's most similar others that two matrices of similarities have in common."""
    count = min(count, len(one_NN) - 1)
    nearest = []
    for similar in (one_NN, other_NN):
        without_self = similar.copy()
        np.fill_diagonal(without_self, -np.inf)
        nearest.append(np.argsort(-without_self, axis=1, kind="stable")[:, :count])
    shared = [len(np.intersect1d(*rows)) for rows in zip(*nearest, strict=True)]
    return float(np.mean(shared) / count)


def int8(x_NE: Array) -> Array:
    """Components rounded to 256 steps between the smallest and the largest of each, as vector indexes store them."""
    low, high = x_NE.min(axis=0), x_NE.max(axis=0)
    step = np.where(high > low, (high - low) / 255, 1.0)
    return np.asarray(np.round((x_NE - low) / step) * step + low)


def _sts(one_NE: Array, other_NE: Array) -> float:
    """Spearman's correlation of the pairs' cosines with their gold scores, each pair counted both ways round."""
    one, other = _unit(one_NE), _unit(other_NE)
    first, second = sample().pairs_P2.T
    cosine = ((one[first] * other[second]).sum(axis=1) + (one[second] * other[first]).sum(axis=1)) / 2
    return _rank_correlation(cosine, sample().gold_P)


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's, not-a-number where one side is constant."""
    return float(spearmanr(one, other).statistic) if min(np.ptp(one), np.ptp(other)) > 0 else float("nan")


def _unit(x_NE: Array) -> Array:
    lengths = np.linalg.norm(x_NE, axis=1, keepdims=True)
    return np.asarray(x_NE / np.where(lengths > 0, lengths, 1.0))


def encode_timed(model: Encoder, tokenizer: Any, folder: Path) -> tuple[Array, dict[str, float]]:
    """Vectors of the fixed sentences, and how much the model in `folder` weighs and how fast it is on this machine.

    bytes on disk; parameters, those of a head that ships included; query_ms, the median time for one of twenty
    sentences alone; sentences_per_second in batches. Tokenising is part of both times.
    """
    texts = sample().texts
    times = []
    for text in texts[:QUERIES]:
        start = time.perf_counter()
        encode(model, tokenizer, [text])
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    found = encode(model, tokenizer, texts)
    rate = len(texts) / (time.perf_counter() - start)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    weight = {"bytes": float(size), "parameters": float(num_parameters(model))}
    return found, {**weight, "sentences_per_second": rate, "query_ms": 1000 * float(np.median(times))}
