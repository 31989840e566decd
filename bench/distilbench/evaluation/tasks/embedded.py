"""The tasks that come with distilbench, as ordinary mteb tasks."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from distilbench.core.cache import find_or_make
from distilbench.core.machine import cache_folder
from distilbench.data.text import embedded_key
from distilbench.evaluation.tasks.profiles import EMBEDDED_RETRIEVAL, EMBEDDED_STS, SICK_TEST
from distilbench.records.record import dump_json

SPLIT = "test"
RETRIEVAL_FILE = "retrieval.json"


def metadata(name: str, description: str, **differing: Any) -> TaskMetadata:
    """What mteb wants to know of a task, for one that is not its own."""
    common: dict[str, Any] = {
        "dataset": {"path": f"distilbench/{name}", "revision": "embedded"},
        "reference": None,
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": [SPLIT],
        "eval_langs": ["eng-Latn"],
        "date": None,
        "dialect": [],
        "sample_creation": "created",
        "bibtex_citation": "",
    }
    return TaskMetadata(name=name, description=description, **(common | differing))


class DistilbenchSTS(AbsTaskSTS):  # type: ignore[misc]
    """Sentence pairs written for this project, graded 0 to 5 by the guidelines beside them."""

    data_loaded: bool
    metadata = metadata(
        EMBEDDED_STS,
        "English sentence pairs of several domains, written and graded 0 to 5 by written guidelines for this task.",
        type="STS",
        main_score="cosine_spearman",
        domains=["Written"],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="LM-generated",
    )

    def load_data(self, **_: Any) -> None:
        """Read the pairs that lie in the package."""
        if self.data_loaded:
            return
        path = files("distilbench.data.embedded") / "sts.tsv"
        with path.open(encoding="utf-8") as stream:
            frame = pd.read_csv(stream, sep="\t", quoting=3)
        self.dataset = DatasetDict({SPLIT: Dataset.from_pandas(frame, preserve_index=False)})
        self.data_loaded = True


class SickTest(AbsTaskSTS):  # type: ignore[misc]
    """SICK's test pairs, which the papers report under the name SICK-R; mteb's SICK-R is all of SICK."""

    how_to_get = (
        "put the 4927 test pairs of SICK into the mirror as extra/sick-test/test.parquet, with the columns sentence1, "
        "sentence2 and score"
    )
    metadata = metadata(
        SICK_TEST,
        "The 4927 test pairs of SICK, as in SentEval: what papers call SICK-R.",
        dataset={"path": "extra/sick-test", "revision": "semeval-2014"},
        reference="https://aclanthology.org/L14-1314/",
        type="STS",
        main_score="cosine_spearman",
        domains=["Web", "Written"],
        task_subtypes=[],
        license="cc-by-nc-sa-3.0",
        annotations_creators="human-annotated",
    )


class DocstringRetrieval(AbsTaskRetrieval):  # type: ignore[misc]
    """Find the body of a docstring by its summary line, in packages that the embedded training text leaves out."""

    data_loaded: bool
    metadata = metadata(
        EMBEDDED_RETRIEVAL,
        "Summary line -> body of docstrings of installed packages that are kept apart from the training text.",
        type="Retrieval",
        main_score="ndcg_at_10",
        domains=["Programming", "Written"],
        task_subtypes=["Article retrieval"],
        license=None,
        annotations_creators="derived",
    )

    def load_data(self, **_: Any) -> None:
        """Harvest the docstrings of the installed packages, or read what an earlier harvest of them gave."""
        if self.data_loaded:
            return
        queries, documents, relevant = _harvest()
        self.dataset = {
            "default": {
                SPLIT: {
                    "corpus": _texts(documents),
                    "queries": _texts(queries),
                    "relevant_docs": relevant,
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def _harvest() -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    from distilbench.data.embedded.docstrings import retrieval_set

    folder = cache_folder() / "embedded" / embedded_key()
    find_or_make(folder, lambda path: dump_json(retrieval_set(), path / RETRIEVAL_FILE), "the embedded task")
    # Always read back, so that the first run sees the order that later ones will see.
    return _stored(folder)


def _stored(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    queries, documents, relevant = json.loads((folder / RETRIEVAL_FILE).read_text(encoding="utf-8"))
    return queries, documents, relevant


def _texts(texts: dict[str, str]) -> Dataset:
    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


TASKS = {EMBEDDED_STS: DistilbenchSTS, EMBEDDED_RETRIEVAL: DocstringRetrieval}
