"""Small real models and texts, made here: no network, no downloads."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

# Read when huggingface_hub is imported, so set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side, one thread each: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

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


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of official task data."""
    folder = os.environ.get("DISTILBENCH_MIRROR")
    if not folder:
        pytest.skip("no official task data: set DISTILBENCH_MIRROR to a mirror")
    return Path(folder)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 4 layers, width 24, 4 heads, mean pooling, normalised, as sentence-transformers stores it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from bench.encoder import Encoder, Normalize
    from bench.export import export

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
    import pandas as pd

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
