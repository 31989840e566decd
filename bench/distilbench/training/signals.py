"""The signals of one batch: what a method asks for in `Needs`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distilbench.data.labelled import LabelledText, Text
from distilbench.models.encoder import Encoder
from distilbench.training.online import ALONE, Company, online_layers
from distilbench.training.stores.teacher_store import FINAL, layer_name
from distilbench.training.stores.vector_store import SignalStore
from distilbench_methods.base import Dims, Needs, Signals, num_masked

KEPT_SHARE, RANDOM_SHARE = 0.1, 0.1
"""Masked tokens that stay as they are, and that another token replaces: Devlin et al. 2019, section 3.1."""


def dims_of(student: Encoder, teacher: Encoder | int, num_rows: int, *, shared_tokens: bool = True) -> Dims:
    """What a method may know of this pair of models and this text.

    Of a teacher of which only vectors are known, `teacher` is their width.
    """
    return Dims(
        student=student.dims,
        teacher=None if isinstance(teacher, int) else teacher.dims,
        student_final=student.output_width(),
        teacher_final=teacher if isinstance(teacher, int) else teacher.output_width(),
        vocabulary=student.backbone.get_input_embeddings().num_embeddings,
        num_sentences=num_rows,
        shared_tokens=shared_tokens,
    )


def negative_rows(index_B: NDArray[np.int64], count: int, num_rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows other than the anchor's own, drawn uniformly, [B, count]; distinct where the text has that many."""
    drawn = _distinct(len(index_B), count, num_rows - 1, rng)
    return drawn + (drawn >= index_B[:, None])


def _distinct(draws: int, count: int, below: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers below a bound, [draws, count], distinct in each draw unless the bound is below `count`."""
    if count <= below < 2 * count:
        shuffled: NDArray[np.int64] = rng.random((draws, below)).argsort(axis=1)
        return shuffled[:, :count]
    drawn: NDArray[np.int64] = rng.integers(0, below, size=(draws, count))
    while count <= below:
        # Only what comes again is drawn anew, so that a large text costs little more than drawing with replacement.
        order = drawn.argsort(axis=1, kind="stable")
        rising = np.take_along_axis(drawn, order, axis=1)
        again = np.zeros(drawn.shape, bool)
        np.put_along_axis(again, order[:, 1:], rising[:, 1:] == rising[:, :-1], axis=1)
        if not again.any():
            break
        drawn[again] = rng.integers(0, below, size=int(again.sum()))
    return drawn


def outside_rows(index_B: NDArray[np.int64], count: int, num_rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows that are not in the batch, drawn uniformly, [count]; distinct where there are that many."""
    if num_rows == len(index_B):
        raise ValueError(f"the batch holds all {num_rows} rows of the text: there are none to draw from outside it")
    taken = np.sort(index_B)
    drawn = _distinct(1, count, num_rows - len(taken), rng)[0]
    # The row with this rank among those not taken: each taken row at or below it shifts it by one.
    shifts: NDArray[np.int64] = np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
    found: NDArray[np.int64] = drawn + shifts
    return found


@dataclass(frozen=True)
class Batch:
    """Token ids of a batch's rows, and of their masked copy where one is asked for."""

    ids_BCT: Tensor
    """One text per row, [B, 1, T], or each row's anchor and candidates, [B, 1 + K, T]."""
    mask_BCT: Tensor
    masked_ids_BT: Tensor | None = None
    position_P: NDArray[np.int64] | None = None
    """Where the masked tokens are in the flattened batch, in rising order."""

    def __len__(self) -> int:
        return len(self.ids_BCT)

    def part(self, start: int, stop: int) -> Batch:
        """Some of the rows, padded as the whole batch is."""
        if self.masked_ids_BT is None or self.position_P is None:
            return Batch(self.ids_BCT[start:stop], self.mask_BCT[start:stop])
        width = self.ids_BCT.shape[-1]
        low, high = np.searchsorted(self.position_P, (start * width, stop * width))
        position_P = self.position_P[low:high] - start * width
        return Batch(self.ids_BCT[start:stop], self.mask_BCT[start:stop], self.masked_ids_BT[start:stop], position_P)


class SignalSource:
    """Makes the signals of a batch: the only reader of `Needs`."""

    def __init__(
        self,
        needs: Needs,
        student: Encoder,
        teacher: Encoder | None,
        text: Text,
        store: SignalStore,
        seed: int,
        company: Company = ALONE,
    ) -> None:
        """`seed` is that of the run's stream of draws: negatives, teacher rows, masks."""
        self._needs, self._student, self._teacher, self._company = needs, student, teacher, company
        self._text, self._store, self._seed = text, store, seed
        # Fused attention knows no dropout on a CPU: torch would materialise the maps, and draw them more slowly.
        on_cpu = student.device.type == "cpu" and student.can_give_maps
        maps = needs.student_attention or needs.student_attention_scores or needs.student_qkv
        student.use_attention_maps(bool(maps) or on_cpu)

    def __call__(self, step: int, rows_B: NDArray[np.int64]) -> Signals:
        """Signals of one batch; the student's carry gradient."""
        batch = self.batch(step, rows_B)
        return self.complete(step, rows_B, batch, self.student_signals(batch))

    def batch(self, step: int, rows_B: NDArray[np.int64]) -> Batch:
        """The tokens of a batch, on the student's device."""
        device = self._student.device
        sentences_BC = self._text.sentences(rows_B, 1 + self._needs.candidates)
        ids, mask = self._text.corpus.batch(sentences_BC.ravel())
        shape = (*sentences_BC.shape, -1)
        batch = Batch(sent(ids.view(shape), device), sent(mask.view(shape), device))
        if not self._needs.masked_tokens:
            return batch
        masked, position_P = self._masked_copy(ids.numpy(), mask.numpy(), self._rng(step, "mask"))
        return Batch(batch.ids_BCT, batch.mask_BCT, sent(torch.from_numpy(masked), device), position_P)

    def _masked_copy(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        corpus = self._text.corpus
        ordinary = (mask_BT == 1) & ~np.isin(ids_BT, corpus.special_ids)
        open_to_masking = np.flatnonzero(ordinary if ordinary.any() else mask_BT)
        count = num_masked(*ids_BT.shape)
        position_P = np.sort(rng.choice(open_to_masking, count, replace=count > len(open_to_masking)))
        fate_P = rng.random(count)
        vocabulary = self._student.backbone.get_input_embeddings().num_embeddings
        random_P = rng.integers(0, vocabulary, count)
        masked = ids_BT.copy()
        flat = masked.reshape(-1)
        hidden_P = np.where(fate_P < KEPT_SHARE + RANDOM_SHARE, random_P, corpus.mask_id)
        flat[position_P] = np.where(fate_P < KEPT_SHARE, flat[position_P], hidden_P)
        return masked, position_P

    def _rng(self, step: int, what: str) -> np.random.Generator:
        """A stream for each kind of draw, so that no method's draws depend on what else it asks for."""
        return np.random.default_rng((self._seed, step, ("negatives", "rows", "mask").index(what)))

    def student_signals(self, batch: Batch) -> dict[str, Any]:
        """What the student gives for some rows, with gradient; fields of `Signals`, those that were asked for."""
        needs = self._needs
        rows, texts, width = batch.ids_BCT.shape
        out = self._student(
            batch.ids_BCT.view(rows * texts, width),
            batch.mask_BCT.view(rows * texts, width),
            layers=needs.student_layers,
            attention=needs.student_attention,
            attention_scores=needs.student_attention_scores,
            hidden=needs.student_hidden,
            qkv=needs.student_qkv,
            layer_pooling=needs.layer_pooling,
        )
        found: dict[str, Any] = {
            "student_attention": out.attention,
            "student_attention_scores": out.attention_scores,
            "student_hidden": out.hidden,
            "student_qkv": out.qkv,
        }
        for one, others, values in (
            ("student_BS", "candidates_BKS", out.final),
            ("student_layers_BLS", "candidate_layers_BKLS", out.layers),
        ):
            if values is not None:
                by_row = values.view(rows, texts, *values.shape[1:])
                found[one] = by_row[:, 0]
                if texts > 1:
                    found[others] = by_row[:, 1:]
        if needs.student_views == 2:
            found["second_view_BS"] = self._student(batch.ids_BCT[:, 0], batch.mask_BCT[:, 0]).final
        if batch.masked_ids_BT is not None:
            found["masked_PS"] = self._masked_states(batch)
        return {name: value for name, value in found.items() if value is not None}

    def _masked_states(self, batch: Batch) -> Tensor:
        last = self._student.dims.layers
        out = self._student(batch.masked_ids_BT, batch.mask_BCT[:, 0], hidden=(last,))
        states: Tensor = out.hidden[0].flatten(0, 1)
        return states[sent(torch.from_numpy(batch.position_P), states.device)]

    def complete(self, step: int, rows_B: NDArray[np.int64], batch: Batch, student: dict[str, Any]) -> Signals:
        """All signals of a batch, given the student's."""
        needs, device = self._needs, batch.ids_BCT.device
        given = dict(student)
        if needs.masked_tokens:
            positions = sent(torch.from_numpy(batch.position_P), device)
            given["masked_target_P"] = batch.ids_BCT.flatten()[positions]
            given["embedding_VS"] = self._student.backbone.get_input_embeddings().weight
        return Signals(
            index_B=sent(torch.from_numpy(rows_B), device),
            mask_BT=batch.mask_BCT[:, 0],
            **given,
            **self._stored_signals(step, rows_B, device),
            **self._online_signals(rows_B, batch),
        )

    def sentences_read(self, step: int, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sentences whose stored signals a step reads."""
        needs, found = self._needs, []
        scored = needs.candidates if needs.teacher_scores and not self._has_scores else 0
        anchors = needs.teacher_final or needs.teacher_layers or scored
        if anchors or needs.teacher_candidates:
            texts_BC = self._text.sentences(rows_B, 1 + max(scored, needs.teacher_candidates))
            found.append(texts_BC if anchors else texts_BC[:, 1:])
        if needs.teacher_rows:
            found.append(self._outside(step, rows_B))
        if needs.teacher_negatives:
            found.append(self._negatives(step, rows_B))
        return np.concatenate([sentences.ravel() for sentences in found]) if found else np.empty(0, np.int64)

    @property
    def _has_scores(self) -> bool:
        return isinstance(self._text, LabelledText) and self._text.scores is not None

    def _outside(self, step: int, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        drawn = outside_rows(rows_B, self._needs.teacher_rows, len(self._text), self._rng(step, "rows"))
        return self._text.sentences(drawn, 1)[:, 0]

    def _negatives(self, step: int, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return negative_rows(rows_B, self._needs.negatives, len(self._text), self._rng(step, "negatives"))

    def _stored_signals(self, step: int, rows_B: NDArray[np.int64], device: torch.device) -> dict[str, Any]:
        needs, anchors_B = self._needs, self._text.sentences(rows_B, 1)[:, 0]
        found: dict[str, Tensor] = {}
        if needs.teacher_final:
            found["teacher_final_BD"] = self._read(FINAL, anchors_B)
        if needs.teacher_layers:
            names = [layer_name(needs.layer_pooling, layer) for layer in needs.teacher_layers]
            found["teacher_layers_BLH"] = torch.stack([self._read(name, anchors_B) for name in names], 1)
        if needs.teacher_rows:
            found["teacher_rows_MD"] = self._read(FINAL, self._outside(step, rows_B))
        if needs.negatives:
            drawn_BK = self._negatives(step, rows_B)
            found["negative_index_BK"] = torch.from_numpy(drawn_BK)
            if needs.teacher_negatives:
                found["teacher_negatives_BKD"] = self._read(FINAL, drawn_BK)
        if needs.teacher_candidates:
            texts_BC = self._text.sentences(rows_B, 1 + needs.teacher_candidates)
            found["teacher_candidates_BKD"] = self._read(FINAL, texts_BC[:, 1:])
        if needs.teacher_scores:
            found["teacher_scores_BK"] = self._scores(rows_B)
        return {name: sent(tensor, device) for name, tensor in found.items()}

    def _scores(self, rows_B: NDArray[np.int64]) -> Tensor:
        """The text's own scores where it has some, else the cosines of the teacher's vectors."""
        if isinstance(self._text, LabelledText) and self._text.scores is not None:
            return torch.from_numpy(self._text.scores[rows_B, : self._needs.candidates])
        vectors_BCD = self._read(FINAL, self._text.sentences(rows_B, 1 + self._needs.candidates))
        return F.cosine_similarity(vectors_BCD[:, :1], vectors_BCD[:, 1:], dim=-1)

    def _read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        return self._store.read(name, rows.ravel()).view(*rows.shape, -1)

    def _online_signals(self, rows_B: NDArray[np.int64], batch: Batch) -> dict[str, Any]:
        layers = online_layers(self._needs)
        if not layers:
            return {}
        assert self._teacher is not None, "methods that look inside the teacher are refused where there is none"
        tokens = (batch.ids_BCT[:, 0], batch.mask_BCT[:, 0])
        found = self._company.teacher_pass(self._teacher, *tokens, layers, rows_B.tobytes())
        return {f"teacher_{kind}": tensors for kind, tensors in found.items()}


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of this process's memory on a device; to a GPU without waiting for what it is busy with."""
    if device.type != "cuda":
        return tensor.to(device)
    # Only from memory that the system does not move can a GPU fetch by itself.
    return tensor.pin_memory().to(device, non_blocking=True)


def detached(signals: Signals) -> Signals:
    """The same batch without gradient."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cut, value))
        return value if value is None else value.detach()

    return Signals(**{field.name: cut(getattr(signals, field.name)) for field in fields(signals)})
