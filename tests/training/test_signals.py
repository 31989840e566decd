"""The teacher-signal store, and the signals of a batch."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distilbench.data.corpus import Corpus
from distilbench.data.labelled import LabelledText, RowsRequest, labelled_key
from distilbench.data.labelled import build_or_open as open_labelled
from distilbench.data.plain_text import TextRequest, build_or_open, corpus_key
from distilbench.models.cutting import build_student
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench.study.sections.models import StudentSpec
from distilbench.study.sections.texts import LabelledSpec, TextSpec
from distilbench.study.sections.training import RowType
from distilbench.training.signals import SignalSource, negative_rows, outside_rows, sent
from distilbench.training.stores.teacher_store import FINAL, TeacherStore, _Array, array_names, store_size, stored_rows
from distilbench_methods.base import Needs, num_masked
from tests.conftest import reader_of


@pytest.fixture
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder).requires_grad_(False)


@pytest.fixture
def corpus(teacher_folder: Path, text_file: Path, tmp_path: Path) -> Corpus:
    request = TextRequest(TextSpec(source=str(text_file)), 128, 64, None, None)
    return build_or_open(request, reader_of(teacher_folder), corpus_key(request, reader_of(teacher_folder)), tmp_path)


def direct(teacher: Encoder, corpus: Corpus, rows: np.ndarray, layers: tuple[int, ...] = ()) -> torch.Tensor:
    with torch.no_grad():
        out = teacher(*corpus.batch(rows), layers=layers)
    found: torch.Tensor = out.final if out.layers is None else out.layers
    return found


def test_the_corpus_holds_every_sentence_once(corpus: Corpus, teacher_folder: Path, text_file: Path) -> None:
    from distilbench.data.tokenizer import load_tokenizer

    lines = text_file.read_text().splitlines()
    tokenizer = load_tokenizer(teacher_folder)
    assert len(corpus) == len(lines) == 400
    ids, mask = corpus.batch(np.array([0, 17]))
    for row, line in zip((0, 1), (lines[0], lines[17]), strict=True):
        assert ids[row][mask[row] == 1].tolist() == tokenizer(line)["input_ids"]
    assert corpus.num_tokens(np.array([0, 17])) == int(mask.sum())


def test_stored_values_are_the_teachers(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL, "mean-0", "mean-3", "cls-4"])
    rows = np.array([5, 1, 399, 12])
    assert store.ensure(rows) == 4
    torch.testing.assert_close(store.read(FINAL, rows), direct(teacher, corpus, rows), atol=1e-6, rtol=1e-5)
    layers = direct(teacher, corpus, rows, layers=(0, 3))
    torch.testing.assert_close(store.read("mean-0", rows), layers[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(store.read("mean-3", rows), layers[:, 1], atol=1e-5, rtol=1e-5)
    first = teacher(*corpus.batch(rows), layers=(4,), layer_pooling="cls").layers[:, 0]
    torch.testing.assert_close(store.read("cls-4", rows), first, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "size", "off"), [("float32", 4, 1e-6), ("float16", 2, 5e-4), ("int8", 1, 4e-3)])
def test_a_store_keeps_rows_in_fewer_bytes(
    teacher: Encoder, corpus: Corpus, tmp_path: Path, kind: RowType, size: int, off: float
) -> None:
    rows, width = np.arange(40), teacher.output_width()
    store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL, "mean-1"], kind)
    store.ensure(rows)
    found, expected = store.read(FINAL, rows), direct(teacher, corpus, rows)
    assert ((found - expected).abs() <= off * expected.abs().max(dim=1, keepdim=True).values).all()
    folder = tmp_path / "signals" / "s"
    assert (folder / "final.bin").stat().st_size == len(corpus) * (width * size + 4 * (kind == "int8"))
    files = [file for pattern in ("*.bin", "*.crc") for file in folder.glob(pattern)]
    assert sum(file.stat().st_size for file in files) == store_size(teacher, [FINAL, "mean-1"], len(corpus), kind)
    assert TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL, "mean-1"], kind).ensure(rows) == 0


def test_rows_are_computed_once_even_by_another_process(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = np.arange(10)
    assert TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL]).ensure(rows) == 10
    again = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    assert again.ensure(np.arange(5, 15)) == 5
    assert again.ensure(rows) == 0
    assert stored_rows(tmp_path / "signals" / "s", [FINAL]) == 15
    assert stored_rows(tmp_path / "signals" / "s", [FINAL, "mean-1"]) == 0


@pytest.mark.parametrize("name", ["final.bin", "final.crc"])
def test_a_changed_byte_costs_its_row_only(
    teacher: Encoder, corpus: Corpus, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.arange(8)
    store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    store.ensure(rows)
    values = store.read(FINAL, rows)
    content = bytearray((tmp_path / "signals" / "s" / name).read_bytes())
    content[3 * len(content) // len(corpus) + 1] ^= 1
    (tmp_path / "signals" / "s" / name).write_bytes(content)
    again = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    assert again.ensure(rows) == 1
    assert f"1 rows of {tmp_path / 'signals' / 's' / 'final.bin'} are damaged" in caplog.text
    # Another batch may round otherwise.
    torch.testing.assert_close(again.read(FINAL, rows), values, rtol=1e-5, atol=1e-6)


def test_a_full_disk_is_an_error_and_loses_nothing(
    teacher: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL]).ensure(np.arange(8))
    store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    with monkeypatch.context() as patch:
        patch.setattr("distilbench.training.stores.teacher_store._Array.write", refuse)
        with pytest.raises(OSError, match="No space left"):
            store.ensure(np.arange(12))
    # Rows that were begun are finished as soon as the store is opened again.
    again = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    assert stored_rows(tmp_path / "signals" / "s", [FINAL]) == 12
    assert again.ensure(np.arange(13)) == 1


def test_begun_rows_are_finished_in_the_batches_in_which_they_were_begun(
    teacher: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, passed = np.arange(40), list[list[int]]()
    monkeypatch.setattr("distilbench.models.embed.TOKENS_PER_PASS", 64)
    original = _Array.write

    def write(self: _Array, rows_B: NDArray[np.int64], values_BW: NDArray[np.float32]) -> None:
        if len(passed) == 3:
            raise KeyboardInterrupt
        passed.append(rows_B.tolist())
        original(self, rows_B, values_BW)

    with monkeypatch.context() as patch:
        patch.setattr(_Array, "write", write)
        with pytest.raises(KeyboardInterrupt):
            TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL]).ensure(rows)
    again = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    twin = TeacherStore(tmp_path / "t", teacher, corpus, [FINAL])
    assert (again.ensure(rows), twin.ensure(rows)) == (0, 40)
    assert torch.equal(again.read(FINAL, rows), twin.read(FINAL, rows))
    assert not (tmp_path / "signals" / "s" / "begun").exists()


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_marks_of_values_that_are_gone_count_for_nothing(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = np.arange(8)
    TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL]).ensure(rows)
    (tmp_path / "signals" / "s" / "final.bin").unlink()
    again = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [FINAL])
    assert again.ensure(rows) == 8
    assert again.read(FINAL, rows).norm(dim=1).tolist() == pytest.approx([1.0] * 8)


def test_negatives_are_other_rows_and_uniform() -> None:
    index = np.repeat(np.arange(5), 400)
    drawn = negative_rows(index, 10, 5, np.random.default_rng(1))
    assert not (drawn == index[:, None]).any()
    counts = np.bincount(drawn[:400].ravel(), minlength=5)
    assert counts[0] == 0
    assert (abs(counts[1:] - 1000) < 150).all()


@pytest.mark.parametrize(("count", "num_rows"), [(4, 5), (3, 5), (2, 5), (40, 1000), (999, 1000)])
def test_negatives_of_an_anchor_are_distinct_where_the_text_has_enough(count: int, num_rows: int) -> None:
    index = np.arange(400) % num_rows
    drawn = np.sort(negative_rows(index, count, num_rows, np.random.default_rng(1)), axis=1)
    assert drawn.shape == (400, count)
    assert (drawn[:, 1:] != drawn[:, :-1]).all()
    assert not (drawn == index[:, None]).any()
    assert drawn.min() >= 0
    assert drawn.max() < num_rows


def test_every_set_of_distinct_negatives_is_as_likely() -> None:
    for count in (2, 3):
        drawn = np.sort(negative_rows(np.zeros(6000, np.int64), count, 7, np.random.default_rng(1)), axis=1)
        _, counts = np.unique(drawn, axis=0, return_counts=True)
        expected = 6000 / math.comb(6, count)
        assert len(counts) == math.comb(6, count)
        assert (abs(counts - expected) < 5 * expected**0.5).all()


def test_a_text_that_is_too_small_gives_negatives_again() -> None:
    assert negative_rows(np.array([0, 2]), 7, 3, np.random.default_rng(1)).shape == (2, 7)


def test_outside_rows_are_those_not_in_the_batch_and_uniform() -> None:
    drawn = outside_rows(np.array([7, 0, 3, 4]), 6000, 8, np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=8)
    assert counts[[0, 3, 4, 7]].sum() == 0
    assert (abs(counts[[1, 2, 5, 6]] - 1500) < 200).all()
    assert sorted(outside_rows(np.array([7, 0]), 6, 8, np.random.default_rng(1))) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="none to draw"):
        outside_rows(np.arange(8), 1, 8, np.random.default_rng(1))


@pytest.fixture
def labelled(teacher_folder: Path, labelled_file: Path, tmp_path: Path) -> Callable[..., LabelledText]:
    def build(**section: object) -> LabelledText:
        spec = LabelledSpec.model_validate({"source": str(labelled_file), **section})
        request = RowsRequest(spec, "labelled", 128, 64, None, None)
        key = labelled_key(request, reader_of(teacher_folder))
        return open_labelled(request, reader_of(teacher_folder), key, tmp_path)

    return build


def test_a_row_of_labelled_text_gives_its_anchor_and_candidates(
    teacher: Encoder, labelled: Callable[..., LabelledText], tmp_path: Path
) -> None:
    text = labelled()
    assert (len(text), text.columns) == (120, 3)
    needs = Needs(candidates=2, student_layers=(1,), teacher_final=True, teacher_scores=True)
    store = TeacherStore(tmp_path / "signals" / "s", teacher, text.corpus, array_names(needs))
    student = build_student(teacher, StudentSpec(layers=2), 1).eval()
    source = SignalSource(needs, student, teacher, text, store, seed=1)
    rows = np.array([5, 90, 17])
    store.ensure(source.sentences_read(0, rows))
    signals = source(0, rows)
    for row, place in enumerate(rows):
        for column, vector in enumerate([signals.student_BS[row], *signals.candidates_BKS[row]]):
            expected = direct(student, text.corpus, text.rows_RC[place, column : column + 1])[0]
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)
    assert signals.candidate_layers_BKLS.shape == (3, 2, 1, 24)
    anchor, others = store.read(FINAL, text.rows_RC[rows, 0]), store.read(FINAL, text.rows_RC[rows, 2])
    torch.testing.assert_close(signals.teacher_scores_BK[:, 1], torch.cosine_similarity(anchor, others))


def test_scores_of_the_text_come_before_the_teachers(
    teacher: Encoder, labelled: Callable[..., LabelledText], tmp_path: Path
) -> None:
    text = labelled(scores=["good", "bad"])
    needs = Needs(candidates=2, teacher_scores=True)
    store = TeacherStore(tmp_path / "signals" / "s", teacher, text.corpus, array_names(needs))
    source = SignalSource(needs, build_student(teacher, StudentSpec(layers=1), 1), teacher, text, store, seed=1)
    rows = np.array([3, 60])
    assert not len(source.sentences_read(0, rows))
    scores = source(0, rows).teacher_scores_BK
    assert scores.numpy() == pytest.approx(np.array([[0.51, 0.1], [0.7, 0.1]]))


@pytest.mark.parametrize("count", [1, 2])
def test_the_teachers_vectors_of_candidates_are_those_of_the_store(
    count: int, teacher: Encoder, labelled: Callable[..., LabelledText], tmp_path: Path
) -> None:
    text, rows = labelled(), np.array([5, 90, 17])
    needs = Needs(candidates=2, teacher_candidates=count)
    store = TeacherStore(tmp_path / "signals" / "s", teacher, text.corpus, array_names(needs))
    source = SignalSource(needs, build_student(teacher, StudentSpec(layers=1), 1), teacher, text, store, seed=1)
    store.ensure(source.sentences_read(0, rows))
    signals = source(0, rows)
    assert signals.teacher_candidates_BKD.shape == (3, count, 24)
    for row, place in enumerate(rows):
        expected = direct(teacher, text.corpus, text.rows_RC[place, 1 : 1 + count])
        torch.testing.assert_close(signals.teacher_candidates_BKD[row], expected, atol=1e-5, rtol=1e-4)
    assert not signals.teacher_candidates_BKD.requires_grad
    assert signals.candidates_BKS.shape[1] == 2


@pytest.mark.parametrize(
    ("needs", "columns"),
    [
        (Needs(candidates=2, teacher_candidates=1), [1]),
        (Needs(candidates=2, teacher_candidates=2), [1, 2]),
        (Needs(candidates=2, teacher_candidates=1, teacher_final=True), [0, 1]),
        (Needs(candidates=2, teacher_final=True), [0]),
        (Needs(candidates=2, teacher_candidates=1, teacher_scores=True), [0, 1, 2]),
        (Needs(candidates=2, teacher_candidates=2, teacher_scores=True, teacher_final=True), [0, 1, 2]),
    ],
)
def test_each_text_of_a_row_is_read_once(
    needs: Needs, columns: list[int], teacher: Encoder, labelled: Callable[..., LabelledText], tmp_path: Path
) -> None:
    text, rows = labelled(), np.array([5, 90, 17])
    store = TeacherStore(tmp_path / "signals" / "s", teacher, text.corpus, array_names(needs))
    source = SignalSource(needs, build_student(teacher, StudentSpec(layers=1), 1), teacher, text, store, seed=1)
    assert sorted(source.sentences_read(0, rows)) == sorted(text.rows_RC[rows][:, columns].ravel())


def test_vectors_of_candidates_need_candidates() -> None:
    with pytest.raises(ValueError, match="ask for as many candidates"):
        Needs(candidates=1, teacher_candidates=2)


def test_masked_tokens_are_ordinary_ones_and_their_states_those_of_the_masked_copy(
    teacher: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    needs, rows = Needs(masked_tokens=True), np.arange(40)
    student = build_student(teacher, StudentSpec(layers=2), 1).eval()
    store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, [])
    source = SignalSource(needs, student, teacher, corpus, store, seed=1)
    batch, signals = source.batch(0, rows), source(0, rows)
    assert batch.masked_ids_BT is not None
    positions = torch.from_numpy(batch.position_P)
    originals, masked = batch.ids_BCT.flatten()[positions], batch.masked_ids_BT.flatten()[positions]
    assert len(positions) == num_masked(40, batch.ids_BCT.shape[-1])
    assert batch.mask_BCT.flatten()[positions].all()
    assert not torch.isin(originals, torch.tensor(corpus.special_ids)).any()
    assert torch.equal(signals.masked_target_P, originals)
    assert 0.6 < float((masked == corpus.mask_id).float().mean()) < 0.95
    untouched = torch.ones(batch.ids_BCT.numel(), dtype=torch.bool)
    untouched[positions] = False
    assert torch.equal(batch.masked_ids_BT.flatten()[untouched], batch.ids_BCT.flatten()[untouched])
    states = student(batch.masked_ids_BT, batch.mask_BCT[:, 0], hidden=(2,)).hidden[0].flatten(0, 1)[positions]
    torch.testing.assert_close(signals.masked_PS, states)
    assert signals.embedding_VS is student.backbone.get_input_embeddings().weight


def test_a_batch_holds_what_was_asked_for_and_nothing_else(teacher: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    everything = Needs(
        teacher_final=True,
        teacher_layers=(1, 4),
        teacher_rows=2,
        teacher_attention=(2, 4),
        teacher_attention_scores=(1,),
        teacher_hidden=(0, 4),
        teacher_qkv=(3,),
        student_layers=(0, 2),
        student_attention=(1, 2),
        student_attention_scores=(2,),
        student_hidden=(1,),
        student_qkv=(2,),
        student_views=2,
        masked_tokens=True,
        negatives=3,
        teacher_negatives=True,
    )
    of_candidates = {"candidates_BKS", "candidate_layers_BKLS", "teacher_scores_BK", "teacher_candidates_BKD"}
    rows = np.array([3, 8, 11])
    student = build_student(teacher, StudentSpec(layers=2), 1)
    for needs in (Needs(), everything):
        store = TeacherStore(tmp_path / "signals" / "s", teacher, corpus, array_names(needs))
        source = SignalSource(needs, student.train(), teacher, corpus, store, seed=1)
        store.ensure(source.sentences_read(0, rows))
        signals = source(0, rows)
        present = {field.name for field in fields(signals) if getattr(signals, field.name) is not None}
        always = {"index_B", "mask_BT", "student_BS"}
        assert present == (always if needs == Needs() else {field.name for field in fields(signals)} - of_candidates)
    width = signals.mask_BT.shape[1]
    assert signals.teacher_layers_BLH.shape == (3, 2, 24)
    assert signals.student_layers_BLS.shape == (3, 2, 24)
    assert [tuple(maps.shape) for maps in signals.teacher_attention] == [(3, 4, width, width)] * 2
    assert not torch.equal(signals.student_BS, signals.second_view_BS)
    assert not signals.teacher_final_BD.requires_grad
    assert not signals.teacher_attention[0].requires_grad
    assert signals.student_attention[0].requires_grad
    own = store.read(FINAL, signals.negative_index_BK.numpy().ravel()).view(3, 3, -1)
    torch.testing.assert_close(signals.teacher_negatives_BKD, own)


def test_scores_and_vectors_inside_attention_are_those_it_works_with(teacher: Encoder, corpus: Corpus) -> None:
    ids_BT, mask_BT = corpus.batch(np.array([1, 2, 3]))
    teacher.use_attention_maps(True)
    with torch.no_grad():
        out = teacher(ids_BT, mask_BT, attention=(2,), attention_scores=(2,), qkv=(2,), hidden=(1, 2))
    teacher.use_attention_maps(False)
    padded_BATT = (mask_BT == 0)[:, None, None, :]
    probabilities = out.attention_scores[0].masked_fill(padded_BATT, -torch.inf).softmax(-1)
    torch.testing.assert_close(probabilities, out.attention[0])
    query, key, value = (part.unflatten(-1, (4, 6)).transpose(1, 2) for part in out.qkv[0].unbind(1))
    torch.testing.assert_close(query @ key.transpose(2, 3) / 6**0.5, out.attention_scores[0])
    block = teacher.backbone.encoder.layer[1].attention.self
    torch.testing.assert_close(out.qkv[0][:, 2], block.value(out.hidden[0]))
    assert value.shape == (3, 4, ids_BT.shape[1], 6)


def test_a_gpu_fetches_from_memory_that_does_not_move() -> None:
    sent_to, pinned = torch.device("cuda", 1), MagicMock()
    tensor = MagicMock()
    tensor.pin_memory.return_value = pinned
    assert sent(tensor, sent_to) is pinned.to.return_value
    pinned.to.assert_called_once_with(sent_to, non_blocking=True)
    values = torch.arange(3)
    assert sent(values, torch.device("cpu")) is values
