"""The teacher-signal store, and the signals of a batch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.corpus import Corpus, build_or_open
from bench.encoder import Encoder, load_encoder
from bench.models import build_student
from bench.signals import FINAL, SignalSource, TeacherStore, array_names, length_batches, negative_rows, stored_rows
from bench.study import StudentSpec, Study, TextSpec
from methods.base import Needs


@pytest.fixture
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder).requires_grad_(False)


@pytest.fixture
def corpus(teacher_folder: Path, text_file: Path, tmp_path: Path) -> Corpus:
    study = Study.model_validate(
        {
            "name": "x",
            "teacher": "x",
            "student": {"layers": 1},
            "text": TextSpec(source=str(text_file)),
            "budget": {"steps": 1},
            "methods": ["mse"],
            "seeds": 1,
            "tasks": ["embedded"],
        }
    )
    return build_or_open(study, teacher_folder, "key", tmp_path, None)


def direct(teacher: Encoder, corpus: Corpus, rows: np.ndarray, layers: tuple[int, ...] = ()) -> torch.Tensor:
    with torch.no_grad():
        out = teacher(*corpus.batch(rows), layers=layers)
    found: torch.Tensor = out.final if out.layers is None else out.layers
    return found


def test_the_corpus_holds_every_sentence_once(corpus: Corpus, teacher_folder: Path, text_file: Path) -> None:
    from bench.encoder import load_tokenizer

    lines = text_file.read_text().splitlines()
    tokenizer = load_tokenizer(teacher_folder)
    assert len(corpus) == len(lines) == 400
    ids, mask = corpus.batch(np.array([0, 17]))
    for row, line in zip((0, 1), (lines[0], lines[17]), strict=True):
        assert ids[row][mask[row] == 1].tolist() == tokenizer(line)["input_ids"]
    assert corpus.num_tokens(np.array([0, 17])) == int(mask.sum())


def test_stored_values_are_the_teachers(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    store = TeacherStore(tmp_path / "s", teacher, corpus, [FINAL, "mean-0", "mean-3", "cls-4"])
    rows = np.array([5, 1, 399, 12])
    assert store.ensure(rows) == 4
    torch.testing.assert_close(store.read(FINAL, rows), direct(teacher, corpus, rows), atol=1e-6, rtol=1e-5)
    layers = direct(teacher, corpus, rows, layers=(0, 3))
    torch.testing.assert_close(store.read("mean-0", rows), layers[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(store.read("mean-3", rows), layers[:, 1], atol=1e-5, rtol=1e-5)
    first = teacher(*corpus.batch(rows), layers=(4,), layer_pooling="cls").layers[:, 0]
    torch.testing.assert_close(store.read("cls-4", rows), first, atol=1e-5, rtol=1e-5)


def test_rows_are_computed_once_even_by_another_process(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = np.arange(10)
    assert TeacherStore(tmp_path / "s", teacher, corpus, [FINAL]).ensure(rows) == 10
    again = TeacherStore(tmp_path / "s", teacher, corpus, [FINAL])
    assert again.ensure(np.arange(5, 15)) == 5
    assert again.ensure(rows) == 0
    assert stored_rows(tmp_path / "s", [FINAL]) == 15
    assert stored_rows(tmp_path / "s", [FINAL, "mean-1"]) == 0


def test_rows_without_their_mark_are_computed_again(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = np.arange(8)
    store = TeacherStore(tmp_path / "s", teacher, corpus, [FINAL])
    store.ensure(rows)
    (tmp_path / "s" / "final.done").write_bytes(b"\0" * len(corpus))
    (tmp_path / "s" / "final.bin").write_bytes(b"\0" * (len(corpus) * 24 * 4))
    again = TeacherStore(tmp_path / "s", teacher, corpus, [FINAL])
    assert again.ensure(rows) == 8
    assert again.read(FINAL, rows).norm(dim=1).tolist() == pytest.approx([1.0] * 8)


def test_marks_of_values_that_are_gone_count_for_nothing(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = np.arange(8)
    TeacherStore(tmp_path / "s", teacher, corpus, [FINAL]).ensure(rows)
    (tmp_path / "s" / "final.bin").unlink()
    again = TeacherStore(tmp_path / "s", teacher, corpus, [FINAL])
    assert again.ensure(rows) == 8
    assert again.read(FINAL, rows).norm(dim=1).tolist() == pytest.approx([1.0] * 8)


def test_negatives_are_other_rows_and_uniform() -> None:
    index = np.repeat(np.arange(5), 400)
    drawn = negative_rows(index, 10, 5, (1, 2)).numpy()
    assert not (drawn == index[:, None]).any()
    counts = np.bincount(drawn[:400].ravel(), minlength=5)
    assert counts[0] == 0
    assert (abs(counts[1:] - 1000) < 150).all()
    assert (negative_rows(index, 10, 5, (1, 2)).numpy() == drawn).all()
    assert (negative_rows(index, 10, 5, (1, 3)).numpy() != drawn).any()


def test_length_batches_cover_all_rows_within_the_token_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=200)
    parts = list(length_batches(np.arange(200), lengths, 64))
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    assert all(len(part) == 1 or len(part) * lengths[part].max() <= 64 for part in parts)


def test_a_batch_holds_what_was_asked_for_and_nothing_else(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    everything = Needs(
        teacher_final=True,
        teacher_layers=(1, 4),
        teacher_attention=(2, 4),
        student_layers=(0, 2),
        student_attention=(1, 2),
        student_views=2,
        negatives=3,
    )
    rows = np.array([3, 8, 11])
    student = build_student(teacher, StudentSpec(layers=2), 1)
    for needs in (Needs(), everything):
        store = TeacherStore(tmp_path / "s", teacher, corpus, array_names(needs))
        store.ensure(rows)
        signals = SignalSource(needs, student.train(), teacher, corpus, store, seed=1)(0, rows)
        present = {field.name for field in fields(signals) if getattr(signals, field.name) is not None}
        always = {"index_B", "mask_BT", "student_BS"}
        assert present == (always if needs == Needs() else {field.name for field in fields(signals)})
    width = signals.mask_BT.shape[1]
    assert signals.teacher_layers_BLH.shape == (3, 2, 24)
    assert signals.student_layers_BLS.shape == (3, 2, 24)
    assert [tuple(maps.shape) for maps in signals.teacher_attention] == [(3, 4, width, width)] * 2
    assert not torch.equal(signals.student_BS, signals.second_view_BS)
    assert not signals.teacher_final_BD.requires_grad
    assert not signals.teacher_attention[0].requires_grad
    assert signals.student_attention[0].requires_grad
