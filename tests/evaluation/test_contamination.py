"""Evaluation text in training text: found, counted, left out, and told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("mteb")

from distilbench.core.errors import UserError
from distilbench.data.corpus import texts_of as sentences_of
from distilbench.data.sentences import write_all
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.evaluation.tasks.contamination import find
from distilbench.evaluation.tasks.overlap import pairs_seen, texts_of
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.study.sections.texts import OwnTask
from distilbench.study.study import Study

Writes = Callable[..., Path]
LONG = "one two three four five six seven eight nine"


def test_equality_and_phrases_by_hand() -> None:
    sentences = [
        "A Dog, runs!",  # equals a query but for signs and case
        "the dog runs",
        f"so it is: {LONG.upper()} or so",  # shares eight words in a row
        "one two three four five six seven, said he",  # seven
        "a document as a whole",
        "...",
    ]
    found = find(sentences, ["a dog runs", f"{LONG} ten", "---"], ["A document, as a whole.", f"{LONG} or more"])
    assert found.rows.tolist() == [0, 2, 4]
    assert found.as_dict() == {"looked_at": 6, "equal": 2, "phrase": 1}
    assert "3 of 6 sentences are evaluation text" in str(found)


def test_documents_count_whole_only() -> None:
    assert find([f"so it is: {LONG}"], [], [f"{LONG} or so"]).rows.tolist() == []


def test_texts_of_tasks(write_pairs: Writes, write_beir: Writes, tmp_path: Path) -> None:
    tasks = [
        load_task(OwnTask(name="mine", source=str(write_pairs(tmp_path))), None),
        load_task(OwnTask(name="search", source=str(write_beir(tmp_path / "set"))), None),
    ]
    short, documents = texts_of(tasks)
    assert (len(short), len(documents)) == (80 + 2, 6)
    data = tasks[0].instance.dataset["test"]
    swapped = [(data["sentence2"][3].upper(), data["sentence1"][3]), ("a", "b")]
    assert pairs_seen(tasks, swapped) == {"mine": 1}


@pytest.fixture
def contaminated(inputs: Inputs, write_pairs: Writes, tmp_path: Path) -> Callable[..., Inputs]:
    """A study whose text holds the 80 texts of its task, and whose labelled text two of its pairs."""
    source = write_pairs(tmp_path)
    pairs = pd.read_csv(source)
    rows = pairs.head(2).rename(columns={"sentence1": "anchor", "sentence2": "positive"})
    others = pd.DataFrame({"anchor": pairs["sentence1"][10:30], "positive": pairs["sentence1"][11:31].to_numpy()})
    pd.concat([rows, others]).to_csv(tmp_path / "rows.csv", index=False)

    def make(**text: object) -> Inputs:
        values = {
            "name": "x",
            "teacher": inputs.study.teacher,
            "student": {"layers": 2, "width": 16},
            "text": {**inputs.study.text.model_dump(), "evaluation_text": "remove", **text},
            "labelled": {"source": str(tmp_path / "rows.csv"), "columns": ["anchor", "positive"]},
            "budget": {"steps": 2},
            "methods": ["mse", {"simcse-supervised": {"hard_negatives": False}}],
            "seeds": 1,
            "tasks": [{"mine": {"source": str(source)}}],
            "train": {"batch_size": 16},
        }
        return make_inputs(Study.model_validate(values), inputs.settings)

    return make


def test_a_study_trains_on_what_is_left(contaminated: Callable[..., Inputs]) -> None:
    keeping, removing = contaminated(evaluation_text="keep"), contaminated()
    assert (len(keeping.text.corpus), keeping.text.contamination) == (400, None)
    assert removing.text.contamination is not None
    removed = removing.text.contamination
    assert (removed.looked_at, removed.equal) == (400, 80)
    assert len(removing.text.corpus) == 400 - len(removed.rows) <= 320
    left = list(sentences_of(removing.settings.cache, removing.text.key))
    scored = {
        text for column in ("sentence1", "sentence2") for text in removing.tasks()[0].instance.dataset["test"][column]
    }
    assert not scored & set(left)
    assert removing.text.key != keeping.text.key


def test_a_damaged_text_is_made_again_before_it_is_looked_at(contaminated: Callable[..., Inputs]) -> None:
    first = contaminated()
    removed, cache = first.text.contamination, first.settings.cache
    assert removed is not None
    shutil.rmtree(cache / "contamination")
    file = cache / "corpora" / first.text.source_key / "sentences.parquet"
    write_all(file, ["another text"] * 400)
    again = contaminated().text.contamination
    assert again is not None
    assert again.rows.tolist() == removed.rows.tolist()


def test_a_text_of_evaluation_text_alone_is_refused(contaminated: Callable[..., Inputs], tmp_path: Path) -> None:
    pairs = contaminated().tasks()[0].instance.dataset["test"]
    path = tmp_path / "all.txt"
    path.write_text("\n".join(dict.fromkeys(pairs["sentence1"])), encoding="utf-8")
    inputs = contaminated(source=str(path))
    with pytest.raises(UserError, match=r"after \d+ that are evaluation text were left out, .* has 0 distinct"):
        inputs.text.corpus  # noqa: B018


def test_labelled_pairs_that_are_test_pairs_are_counted(contaminated: Callable[..., Inputs]) -> None:
    labelled = contaminated().labelled
    assert labelled is not None
    labelled.text  # noqa: B018
    assert labelled.pairs_seen == {"mine": 2}


def test_a_text_without_evaluation_text_is_the_same_text(contaminated: Callable[..., Inputs], tmp_path: Path) -> None:
    words = tmp_path / "clean.txt"
    words.write_text("".join(f"number {n} of the clean ones\n" for n in range(60)))
    keeping, removing = contaminated(source=str(words), evaluation_text="keep"), contaminated(source=str(words))
    removing.text.corpus  # noqa: B018
    assert removing.text.contamination is not None
    assert removing.text.contamination.as_dict() == {"looked_at": 60, "equal": 0, "phrase": 0}
    assert removing.text.key == keeping.text.key
