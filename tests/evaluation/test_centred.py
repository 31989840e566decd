"""Centred scores: by hand, as mteb scores an encoder that centres its vectors, and in records and reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mteb
import numpy as np
import pytest
from numpy.typing import NDArray

from distilbench.analysis.frame import OVERALL, make_study
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.evaluate import evaluate
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.evaluation.tasks.profiles import EMBEDDED_STS
from distilbench.evaluation.vectors.centred import centred, centred_correlation, mean_of, unit
from distilbench.models.finding import PACKAGED_NAME, find_model
from distilbench.models.model_folder import load_encoder
from distilbench.records.record import Record, read_study
from distilbench.records.schema import CENTRED, MAIN, MEAN_LENGTH
from distilbench.reporting.findings import findings
from distilbench.reporting.tables.scores import main_table
from distilbench.reporting.write import with_errors
from tests.conftest import Cli, Writes
from tests.evaluation.test_evaluation import write_retrieval
from tests.reporting.planted import factorial, simulate


class Fixed:
    """An encoder of texts that are numbers of given vectors."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        self.vectors = vectors

    def encode(self, inputs: Any, **_: Any) -> NDArray[Any]:
        return self.vectors[[int(text) for text in inputs.dataset["text"]]]


class Centring(BenchEncoder):
    """What mteb scores as it is: the vectors less a mean that is known beforehand."""

    mean: NDArray[np.float64]

    def encode(self, inputs: Any, **options: Any) -> NDArray[np.float32]:
        found: NDArray[np.float32] = super().encode(inputs, **options)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        around: NDArray[np.float32] = (found / lengths - self.mean).astype(np.float32)
        return around


def test_two_vectors_become_opposite() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 3.0]])
    mean = mean_of(unit(vectors))
    np.testing.assert_allclose(mean, [0.5, 0.5])
    np.testing.assert_allclose(centred(unit(vectors), mean), np.array([[1, -1], [-1, 1]]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(vectors, [[2.0, 0.0], [0.0, 3.0]])


def test_a_text_counts_once_and_rotations_do_not_count() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 4)) + 2
    pairs = [("0", "1"), ("0", "2"), ("3", "4"), ("0", "5"), ("2", "4")]
    gold = [1.0, 4.0, 2.0, 5.0, 3.0]
    found = centred_correlation(Fixed(vectors), None, pairs, gold)
    assert found[1] == pytest.approx(np.linalg.norm(unit(vectors).mean(axis=0)), abs=1e-6)
    turned, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    other = centred_correlation(Fixed(7 * vectors @ turned), None, [*pairs, pairs[0]][:5], gold)
    np.testing.assert_allclose(other, found, atol=1e-6)


def test_without_spread_there_is_no_score() -> None:
    assert np.isnan(centred_correlation(Fixed(np.eye(2)), None, [("0", "1"), ("1", "0")], [1.0, 2.0])[0])


@pytest.mark.parametrize("name", [EMBEDDED_STS, "SciFact"])
def test_they_are_what_mteb_gives_an_encoder_that_centres(tmp_path: Path, name: str) -> None:
    write_retrieval(tmp_path / "mteb" / "scifact")
    task, folder = load_task(name, tmp_path, 100), find_model(PACKAGED_NAME).folder
    model, tokenizer = load_encoder(folder), load_tokenizer(folder)
    plain = BenchEncoder(model, tokenizer, "plain", "plain")
    found = evaluate(plain, task).metrics
    ((_, _, data),) = task.splits()
    if task.is_retrieval:
        texts = [f"{row['title']} {row['text']}" for row in data["corpus"]]
    else:
        texts = list(dict.fromkeys([*data["sentence1"], *data["sentence2"]]))
    vectors = unit(plain.encode(SimpleNamespace(dataset={"text": texts}), task_metadata=task.instance.metadata))
    centring = Centring(model, tokenizer, "centring", "centring")
    centring.mean = mean_of(vectors)
    (theirs,) = mteb.evaluate(centring, [task.instance], cache=None, show_progress_bar=False).task_results
    (expected,) = theirs.scores["test"]
    assert found[CENTRED] == pytest.approx(expected[MAIN], abs=1e-5)
    assert found[MEAN_LENGTH] == pytest.approx(float(np.linalg.norm(centring.mean)), abs=1e-6)


def test_records_and_the_main_table_have_them(cli: Cli, study: Writes, tmp_path: Path) -> None:
    code, _, err = cli("run", study(), "--out", tmp_path / "out")
    assert code == 0, err
    records = read_study(tmp_path / "out" / "tiny")
    assert all({CENTRED, MEAN_LENGTH} <= scores.keys() for record in records for scores in record.scores.values())
    table = main_table(make_study("tiny", records))
    assert {"Centred", "Mean vector"} <= set(table.text.columns)
    (note,) = (note for note in table.notes if note.startswith("Centred: mean over tasks with"))
    (own,) = (record for record in records if record.role == "method")
    shown = table.text.set_index("Method").loc["mse", "Centred"]
    assert shown == f"{100 * own.scores['DistilbenchSTS'][CENTRED]:.2f}" and "Mean vector" in note


def with_centred(records: list[Record], scores: dict[str, float]) -> list[Record]:
    """The records, every task's centred score that of their row."""
    return [
        replace(
            record,
            scores={
                task: {**metrics, CENTRED: scores[record.label], MEAN_LENGTH: 0.5}
                for task, metrics in record.scores.items()
            },
        )
        for record in records
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_a_sentence_says_where_the_order_depends_on_the_offset(tmp_path: Path, turned: bool) -> None:
    design = factorial(kind=["good", "poor"])
    made = simulate(design, lambda levels: 0.7 if levels["kind"] == "good" else 0.3, 5, np.random.default_rng(0))
    made.write(tmp_path / "planted", design)
    scores = {"good": 0.2, "poor": 0.4} if turned else {"good": 0.6, "poor": 0.4}
    shown = with_centred(made.records, scores)
    said = findings(*with_errors(make_study("planted", shown), tmp_path / "planted"))
    sentences = [sentence for sentence in said if sentence.startswith("With centred vectors")]
    assert bool(sentences) == turned
    if turned:
        assert "poor has the best mean, and of the 1 difference shown here 1 turn round" in sentences[0]
    assert said[0].startswith(f"On {OVERALL}")
