"""Whatever is kept under a key is noticed in the place of another, whole as it is, and made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilbench.core.cache import kept_arrays
from distilbench.data import labelled, plain_text
from distilbench.data.corpus import Corpus
from distilbench.data.labelled import RowsRequest, labelled_key
from distilbench.data.plain_text import TextRequest, corpus_key
from distilbench.data.tokenizer import load_tokenizer
from distilbench.data.tokens import TokenCache
from distilbench.evaluation import calibration
from distilbench.evaluation.calibration import TaskCalibration, diagnose
from distilbench.evaluation.score import score
from distilbench.evaluation.tasks import contamination, embedded
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.study.sections.texts import LabelledSpec, OwnTask, TextSpec
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench.training.stores.teacher_store import FINAL, TeacherStore
from tests.conftest import Writes, sentences


@dataclass
class Place:
    """Where to make two artefacts of a kind, 0 and 1, and from what."""

    folder: Path
    teacher: StoredModel
    write_pairs: Writes
    monkeypatch: pytest.MonkeyPatch

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def text(self, number: int) -> TextRequest:
        path = self.folder / f"{number}.txt"
        path.write_text("\n".join(sentences(40, seed=number)))
        return TextRequest(TextSpec(source=str(path)), 64, 4, None, None)

    def open_text(self, number: int) -> Corpus:
        request = self.text(number)
        key = corpus_key(request, self.teacher.reader())
        return plain_text.build_or_open(request, self.teacher.reader(), key, self.cache)

    def task(self, number: int) -> Any:
        folder = self.folder / f"task-{number}"
        folder.mkdir(exist_ok=True)
        source = str(self.write_pairs(folder, seed=number))
        return load_task(OwnTask(name="mine", source=source), None)


Use = Callable[[Place, int], Any]
"""Finds or makes one of the two artefacts, and says what is in it."""


def text(place: Place, number: int) -> str:
    return place.open_text(number).sha256


def text_without_some(place: Place, number: int) -> str:
    request, key, rows = place.text(0), place.open_text(0).key, np.array([number])
    _, open_it = plain_text.without(request, place.teacher.reader(), key, rows, 40, place.cache)
    return open_it().sha256


def labelled_text(place: Place, number: int) -> str:
    path = place.folder / f"{number}.csv"
    path.write_text("a,b\n" + "".join(f"{text},{text} too\n" for text in sentences(20, seed=number)))
    spec = LabelledSpec(source=str(path), columns=["a", "b"])
    request = RowsRequest(spec, "labelled", 64, 4, None, None)
    key = labelled_key(request, place.teacher.reader())
    return labelled.build_or_open(request, place.teacher.reader(), key, place.cache).corpus.sha256


def tokens(place: Place, number: int) -> list[list[int]]:
    tokenizer = load_tokenizer(place.teacher.folder)
    return list(TokenCache(place.cache, "a tokenizer").tokenised(tokenizer, sentences(5, seed=number), 64))


def arrays(place: Place, number: int) -> Any:
    return kept_arrays(place.cache, "arrays", lambda: {"x": np.array([number])}, number=number)["x"].tolist()


def evaluation_text(place: Place, number: int) -> Any:
    task = place.task(number)
    first = list(task.instance.dataset["test"]["sentence1"])[number]
    looked_at = ["something else", *[first] * (number + 1)]
    return contamination.find_or_open(f"text {number}", looked_at, [task], place.cache).rows.tolist()


def diagnosis(place: Place, number: int) -> str:
    place.monkeypatch.setattr(calibration, "figures", lambda *_: {"mine": None})
    place.monkeypatch.setattr(calibration, "_look", lambda *_: {"cause": f"cause {number}"})
    compared = TaskCalibration("mine", 0.5, 0.4, 40 + number, 40, "a paper")
    return diagnose(place.teacher, place.task(0), compared, place.cache, "cpu")


def model_score(place: Place, number: int) -> dict[str, float]:
    (kept,) = score(place.teacher, [place.task(number)], place.cache, "cpu")
    return kept.metrics


def embedded_task(place: Place, number: int) -> Any:
    harvest = ({"q": f"query {number}"}, {"d": "document"}, {"q": {"d": 1}})
    place.monkeypatch.setenv("DISTILBENCH_CACHE", str(place.cache))
    place.monkeypatch.setattr(embedded, "embedded_key", lambda: f"packages-{number}")
    place.monkeypatch.setattr("distilbench.data.embedded.docstrings.retrieval_set", lambda: harvest)
    return embedded._harvest()


def teachers_signals(place: Place, number: int) -> list[float]:
    teacher = load_encoder(place.teacher.folder).requires_grad_(False)
    store = TeacherStore(place.cache / "signals" / f"store-{number}", teacher, place.open_text(number), [FINAL])
    store.ensure(np.arange(8))
    return store.read(FINAL, np.arange(8)).flatten().tolist()


def checkpoint(place: Place, number: int) -> int:
    checkpoints = Checkpoints(place.cache / "checkpoints" / f"run-{number}", 0)
    snapshot = checkpoints.load()
    if snapshot is None:
        checkpoints.save(lambda: Snapshot({"step": torch.tensor(number)}, {}))
        snapshot = checkpoints.load()
    assert snapshot is not None
    return int(snapshot.tensors["step"])


KINDS: list[tuple[str, Use]] = [
    ("corpora", text),
    ("corpora", text_without_some),
    ("corpora", labelled_text),
    ("tokens", tokens),
    ("arrays", arrays),
    ("contamination", evaluation_text),
    ("calibration", diagnosis),
    ("scores", model_score),
    ("embedded", embedded_task),
    ("signals", teachers_signals),
    ("checkpoints", checkpoint),
]


@pytest.mark.parametrize(("kind", "use"), KINDS, ids=[use.__name__ for _, use in KINDS])
def test_two_in_each_others_place_are_noticed_and_made_again(
    kind: str,
    use: Use,
    teacher_folder: Path,
    write_pairs: Writes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place(tmp_path, StoredModel("teacher", teacher_folder), write_pairs, monkeypatch)
    before: list[tuple[Path, Any]] = []
    for number in (0, 1):
        known = set(place.cache.glob(f"{kind}/*"))
        content = use(place, number)
        made = set(place.cache.glob(f"{kind}/*")) - known
        # A text that is made from another one comes after it.
        folder = max(made, key=lambda path: path.stat().st_ctime_ns)
        before.append((folder, content))
    (one, first), (other, second) = before
    assert first != second, "the test needs two that differ"
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert [use(place, 0), use(place, 1)] == [first, second]
    assert [use(place, 0), use(place, 1)] == [first, second]
    assert all(f"in {folder} " in caplog.text for folder in (one, other))
    assert caplog.text.count("another place") == 2
