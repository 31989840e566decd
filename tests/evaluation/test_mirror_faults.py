"""Official data in a mirror without sums: what is damaged, or said in no known form, is named in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytest.importorskip("mteb")

from distilbench.core.errors import UserError
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.study.sections.texts import PartOfTask
from tests.evaluation.test_own_faults import CORPUS, PAIRS, QRELS, QUERIES

Cli = Callable[..., tuple[int, str, str]]
ENGLISH = PartOfTask(name="STS17", subsets=("en-en",))


@pytest.fixture
def sts17(tmp_path: Path) -> Path:
    """The folder of STS17 in a mirror, with a table that no layout finds."""
    folder = tmp_path / "mteb" / "sts17-crosslingual-sts"
    folder.mkdir(parents=True)
    pd.DataFrame(PAIRS).to_parquet(folder / "x.parquet")
    return folder


def card(folder: Path, configs: Any, name: str = "README.md") -> None:
    head = yaml.safe_dump({"configs": configs})
    (folder / name).write_text(head if name != "README.md" else f"---\n{head}---\n# A data set\n", encoding="utf-8")


FORMS: list[Any] = [
    *(5, "en-en", [5], {"config_name": "en-en"}),
    *([{"config_name": "en-en", "data_files": files}] for files in (7, [7], [{"split": "test"}], {"test": 3})),
    *([{"config_name": "en-en", "data_files": [{"split": "test", "path": path}]}] for path in (7, None)),
]


@pytest.mark.parametrize("configs", FORMS, ids=str)
@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_a_card_in_no_known_form_is_named(configs: Any, name: str, sts17: Path, tmp_path: Path) -> None:
    card(sts17, configs, name)
    with pytest.raises(UserError, match=rf"is damaged: {name} lists `configs` in a form that the Hub does not know"):
        load_task(ENGLISH, tmp_path)


@pytest.mark.parametrize("path", ["x.parquet", ["x.parquet"], "*.parquet"])
def test_the_card_that_prefetch_leaves_is_read(path: Any, sts17: Path, tmp_path: Path) -> None:
    card(sts17, [{"config_name": "en-en", "data_files": [{"split": "test", "path": path}]}], ".huggingface.yaml")
    # Which overrules the other, as for the texts of a study.
    card(sts17, [{"config_name": "en-en", "data_files": [{"split": "test", "path": "gone.parquet"}]}])
    assert load_task(ENGLISH, tmp_path).instance.dataset["en-en"]["test"]["sentence1"][0] == "a dog runs"


def test_a_file_that_a_card_names_and_that_is_gone(sts17: Path, tmp_path: Path) -> None:
    card(sts17, [{"config_name": "en-en", "data_files": [{"split": "test", "path": ["x.parquet", "y.parquet"]}]}])
    with pytest.raises(UserError, match=r"y.parquet is missing, which README.md names"):
        load_task(ENGLISH, tmp_path)


def test_a_card_that_is_not_utf8_says_what_it_says(sts17: Path, tmp_path: Path) -> None:
    card(sts17, [{"config_name": "en-en", "data_files": [{"split": "test", "path": "x.parquet"}]}])
    readme = sts17 / "README.md"
    readme.write_bytes(readme.read_bytes() + b"caf\xe9\n")
    assert len(load_task(ENGLISH, tmp_path).instance.dataset["en-en"]["test"]) == len(PAIRS)


def test_a_row_of_no_language(sts17: Path, tmp_path: Path) -> None:
    rows = [{**row, "lang": "en-en" if at != 1 else None} for at, row in enumerate(PAIRS)]
    pd.DataFrame(rows).to_parquet(sts17 / "test.parquet")
    with pytest.raises(UserError, match=r"test.parquet row 2 has no usable value under 'lang'"):
        load_task(ENGLISH, tmp_path)


@pytest.mark.parametrize("column", ["sentence1", "sentence2"])
def test_pairs_of_numbers(column: str, sts17: Path, tmp_path: Path) -> None:
    (sts17 / "en-en").mkdir()
    pd.DataFrame(PAIRS).assign(**{column: 7}).to_parquet(sts17 / "en-en" / "test.parquet")
    with pytest.raises(UserError, match=rf"en-en/test.parquet row 1 has .*7.* under '{column}', which is no text"):
        load_task(ENGLISH, tmp_path)


def test_a_source_that_is_no_json(sts17: Path, tmp_path: Path) -> None:
    (sts17 / "en-en").mkdir()
    pd.DataFrame(PAIRS).to_parquet(sts17 / "en-en" / "test.parquet")
    (sts17 / "SOURCE.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged: SOURCE.json is not JSON"):
        load_task(ENGLISH, tmp_path)


@pytest.mark.parametrize("table", ["corpus", "queries"])
def test_documents_of_numbers(table: str, tmp_path: Path) -> None:
    converted(tmp_path / "mteb" / "scifact", **{table: 5})
    with pytest.raises(UserError, match=rf"{table}/0000.parquet row 1 has .*5.* under 'text', which is no text"):
        load_task("SciFact", tmp_path)


def test_documents_as_the_hub_converts_them(tmp_path: Path) -> None:
    converted(tmp_path / "mteb" / "scifact")
    (_, _, data), *_ = load_task("SciFact", tmp_path).splits()
    assert data["corpus"]["text"][:] == [row["text"] for row in CORPUS]
    assert data["relevant_docs"] == {"q0": {"d0": 1, "d3": 2}, "q1": {"d1": 1}}


def converted(folder: Path, **texts: int) -> None:
    """Documents in the layout of the Hub's conversions to parquet, some tables with a number for every text."""
    tables = {"corpus/corpus": CORPUS, "queries/queries": QUERIES, "default/test": QRELS}
    for place, rows in tables.items():
        (folder / place).mkdir(parents=True)
        frame, name = pd.DataFrame(rows), place.partition("/")[0]
        frame = frame.assign(text=texts[name]) if name in texts else frame
        frame.to_parquet(folder / place / "0000.parquet")
