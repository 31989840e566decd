"""Small real models and texts, made here: no network, no downloads."""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# Read when huggingface_hub is imported, so set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side, one thread each: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# And those of a test that has more wait asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure

import distilbench_methods
from distilbench.cli.app import main
from distilbench.core.machine import Settings
from distilbench.data.tokenizer import TextReader
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import StoredModel
from distilbench.runs import trial
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.budget import Budget
from distilbench.study.study import Study
from distilbench.training.job import TrainingJob
from distilbench.training.stores.teacher_store import array_names
from distilbench.training.stores.vector_store import SignalStore
from distilbench_methods.base import Method, Needs

WORDS = re.findall(
    r"\w+",
    "the a an of to in and is are was were it that this with for on as by from at or not be has have will can dog "
    "cat house tree river bird stone water fire light dark small large old new red green blue man woman child runs "
    "walks sees takes gives finds keeps loses opens closes falls rises sings writes reads makes under over near "
    "after before ",
)


MANY_TESTS = 500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that workers that run them side by side end together."""
    counts = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker("slow") or counts[item.path] > MANY_TESTS}
    items.sort(key=lambda item: item.path not in long)
    for item in items:
        # Whole studies spend their time in libraries, where tracing would double it.
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests share nothing with the user's cache."""
    os.environ["DISTILBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_precision() -> None:
    """Scores are the same on machines that multiply bf16 fast."""
    os.environ["DISTILBENCH_PRECISION"] = "fp32"


@pytest.fixture(autouse=True)
def _sketched_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not rendered, except where a test looks at them: four fifths of a report's time."""
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr("distilbench.reporting.figures.all_figures.save", _sketch)


def _sketch(_: Figure, folder: Path, name: str) -> None:
    for ending in ("svg", "png", "pdf"):
        (folder / f"{name}.{ending}").write_text('<svg xmlns="http://www.w3.org/2000/svg" />', encoding="utf-8")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of official task data."""
    folder = os.environ.get("DISTILBENCH_MIRROR")
    if not folder:
        pytest.skip("no official task data: set DISTILBENCH_MIRROR to a mirror")
    return Path(folder)


@pytest.fixture(scope="session")
def real_models() -> Path:
    """A folder of real models in the Hub's layout, all-mpnet-base-v2 and paraphrase-MiniLM-L3-v2 among them."""
    folder = os.environ.get("DISTILBENCH_MODELS")
    if not folder:
        pytest.skip("no real models: set DISTILBENCH_MODELS to a folder that holds them as the Hub does")
    return Path(folder) / "sentence-transformers"


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 4 layers, width 24, 4 heads, mean pooling, normalised, as sentence-transformers stores it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from distilbench.models.encoder import Encoder, Normalize
    from distilbench.models.export import export

    folder = tmp_path_factory.mktemp("models")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz.,"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        backbone = BertModel(config, add_pooling_layer=False).eval()
    teacher = Encoder(backbone, pooling="mean", head=torch.nn.Sequential(Normalize()), max_length=64)
    export(teacher, tokenizer, folder / "teacher", "# A random teacher\n")
    return folder / "teacher"


def sentences(count: int, seed: int = 0) -> list[str]:
    """Distinct word sequences of 3 to 20 words."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        length = int(torch.randint(3, 21, (), generator=generator))
        chosen = torch.randint(0, len(WORDS), (length,), generator=generator)
        made[" ".join(WORDS[word] for word in chosen)] = None
    return list(made)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 sentences, one per line."""
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text("\n".join(sentences(400)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows of an anchor, a text with words of it, and another text, with a score for each of the two."""
    anchors, others = sentences(120, seed=1), sentences(120, seed=2)
    rows = {
        "anchor": anchors,
        "positive": [" ".join(text.split()[::-1]) + " too" for text in anchors],
        "negative": others,
        "good": [0.5 + row / 300 for row in range(120)],
        "bad": [0.1] * 120,
    }
    path = tmp_path_factory.mktemp("labelled") / "rows.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


Cli = Callable[..., tuple[int, str, str]]
MakeJob = Callable[..., TrainingJob]
SMALL: dict[str, dict[str, Any]] = {
    "hpd": {"width": 8},
    "ckd": {"queue_size": 32},
    "minilm": {"relation_heads": 4},
    "matryoshka": {"widths": (8,)},
}
"""Settings that fit models as small as those of these tests."""


Writes = Callable[..., Path]


@pytest.fixture(scope="session")
def write_pairs(text_file: Path) -> Writes:
    """Writes 40 pairs with scores, other scores for another seed."""
    texts = text_file.read_text(encoding="utf-8").splitlines()

    def write(folder: Path, seed: int = 0) -> Path:
        scores = np.random.default_rng(seed).random(40)
        frame = pd.DataFrame({"sentence1": texts[:40], "sentence2": texts[40:80], "score": scores})
        frame.to_csv(folder / "pairs.csv", index=False)
        return folder / "pairs.csv"

    return write


@pytest.fixture(scope="session")
def write_beir(text_file: Path) -> Writes:
    """Writes six documents and three queries, of which two are judged, in BEIR's own layout."""
    texts = text_file.read_text(encoding="utf-8").splitlines()

    def write(folder: Path) -> Path:
        (folder / "qrels").mkdir(parents=True)
        corpus = [{"_id": f"d{n}", "title": "", "text": text, "metadata": {}} for n, text in enumerate(texts[:6])]
        queries = [{"_id": f"q{n}", "text": text, "metadata": {}} for n, text in enumerate(texts[6:9])]
        for name, rows in {"corpus": corpus, "queries": queries}.items():
            (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        judged = "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td3\t2\nq1\td1\t1\n"
        (folder / "qrels" / "test.tsv").write_text(judged)
        return folder

    return write


def shut_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Shut every way to the network; gives where somebody has tried to go since."""
    tried: list[Any] = []

    def refuse(*where: Any, **_: Any) -> NoReturn:
        tried.append(where)
        raise OSError("the network is shut")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.fixture(scope="session")
def tried_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is remembered which rows were tried with which models: many tests train the same ones."""
    return tmp_path_factory.mktemp("cache") / "tried"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tried_folder: Path, tmp_path: Path) -> Cli:
    """Runs distilbench in an empty folder with an empty cache; gives the exit code, the output and the errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "tried_folder", lambda cache: tried_folder)
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def study(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Writes:
    """Writes a study that takes seconds, with some sections changed."""

    def write(**changes: Any) -> Path:
        values = {
            "name": "tiny",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            "text": {"source": str(text_file)},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 4},
            "methods": ["mse"],
            "seeds": 1,
            "tasks": ["DistilbenchSTS"],
            "train": {"batch_size": 16, "max_length": 64},
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return write


@pytest.fixture
def inputs(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Inputs:
    return inputs_of(teacher_folder, text_file, labelled_file, tmp_path)


def inputs_of(teacher: Path, text: Path, labelled: Path, folder: Path) -> Inputs:
    """What every method can be trained on, with the cache in a folder."""
    study = Study.model_validate(
        {
            "name": "x",
            "teacher": str(teacher),
            "student": {"layers": 2, "width": 16},
            # To look for evaluation text would load the tasks, which most tests do without.
            "text": {"source": str(text), "evaluation_text": "keep"},
            "labelled": {"source": str(labelled)},
            "budget": {"steps": 6},
            "methods": [{name: SMALL.get(name, {})} for name in distilbench_methods.registry()],
            "seeds": 2,
            "tasks": ["embedded"],
            "train": {"batch_size": 16},
        }
    )
    return make_inputs(study, Settings(out=folder, cache=folder / "cache", mirror=None, device="cpu"))


def reader_of(folder: Path) -> TextReader:
    """How the model of a folder reads texts."""
    return StoredModel("model", folder).reader()


def teacher_of(job: TrainingJob) -> Encoder:
    """The model that teaches in a training."""
    assert job.teacher is not None
    return job.teacher


def store_for(inputs: Inputs, needs: Needs) -> SignalStore:
    """The store with what a method with these needs reads."""
    arrays = tuple(sorted(array_names(needs)))
    return inputs.stores.open(inputs.source_of(needs), arrays, inputs.study.train.signals)


@pytest.fixture
def make_job(inputs: Inputs) -> MakeJob:
    return partial(job_of, inputs)


def job_of(
    inputs: Inputs, method: Method | str, seed: int = 1, budget: Budget | None = None, **settings: Any
) -> TrainingJob:
    """A training on these inputs of a method, or of that of a name with its settings."""
    if isinstance(method, str):
        method = distilbench_methods.load(method)(**{**SMALL.get(method, {}), **settings})
    needs = method.needs(inputs.dims)
    return TrainingJob(
        method=method,
        student=inputs.students.build(seed),
        teacher=as_model(inputs.teacher).encoder,
        text=inputs.text_of(needs),
        store=store_for(inputs, needs),
        spec=inputs.study.train,
        budget=budget or inputs.budget,
        seed=seed,
    )
