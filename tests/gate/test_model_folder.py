"""A model folder from end to end: blessed, checked against itself, and against a worse one."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from distilbench.cli.app import main
from distilbench.gate.baseline import read_baseline
from distilbench.gate.candidate import encoder_of
from distilbench.models.encoder import Encoder, Normalize
from distilbench.models.export import export

TASK = "DistilbenchSTS"
WORDS = "embeddings.word_embeddings.weight"


def rows() -> list[dict[str, str]]:
    with (files("distilbench.data.embedded") / "sts.tsv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer that knows the task's words, and so tells pairs that share some."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    texts = " ".join(f"{row['sentence1']} {row['sentence2']}" for row in rows()).lower()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(re.findall(r"\w+", texts)))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    shape = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.3, **shape)
        backbone = BertModel(config, add_pooling_layer=False).eval()
        backbone.embeddings.word_embeddings.weight.data *= 4
    encoder = Encoder(backbone, pooling="mean", head=torch.nn.Sequential(Normalize()), max_length=64)
    export(encoder, BertTokenizerFast(vocab=str(folder / "vocab.txt")), folder / "model", "# A random model\n")
    return folder / "model"


@pytest.fixture(scope="module")
def blessed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "tiny.json"
    arguments = ["check", str(model), "--baseline", str(path), "--device", "cpu"]
    assert main([*arguments, "--bless", "--tasks", TASK]) == 0
    return path


def test_the_model_passes_against_itself(blessed: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(model), "--baseline", str(blessed), "--device", "cpu", "--json"]) == 0
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)["lines"]}
    assert {"Drift", TASK, f"{TASK}: negation", f"{TASK}: long"} <= lines.keys()
    assert lines["Drift"]["verdict"] == lines[TASK]["verdict"] == "pass"
    assert lines[TASK]["difference"] == 0


def test_libraries_are_imported_without_collections(blessed: Path, model: Path) -> None:
    code = """
import gc, sys
seen = {}
def note(event, found):
    if event == "import" and found[0] in ("torch", "sentence_transformers", "mteb"):
        seen.setdefault(found[0], gc.isenabled())
sys.addaudithook(note)
from distilbench.cli.app import main
main(sys.argv[1:])
sys.stderr.write(f"{sorted(seen.items())} {gc.isenabled()}")
"""
    command = [sys.executable, "-c", code, "check", str(model), "--baseline", str(blessed), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    expected = [("mteb", False), ("sentence_transformers", False), ("torch", False)]
    assert done.stderr.splitlines()[-1] == f"{expected} True"


def test_its_score_is_that_of_its_vectors(blessed: Path, model: Path) -> None:
    encode = encoder_of(model, "cpu")
    one, other = (encode([row[key] for row in rows()]) for key in ("sentence1", "sentence2"))
    expected = spearmanr((one * other).sum(axis=1), [float(row["score"]) for row in rows()]).statistic
    assert read_baseline(blessed).scores[TASK].item() == pytest.approx(expected, abs=1e-4)


def test_a_worse_model_that_was_changed_on_purpose_regresses_in_its_scores(
    blessed: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words count for less beside their places in the sentence."""
    folder = shutil.copytree(model, tmp_path / "worse")
    weights = load_file(folder / "model.safetensors")
    weights[WORDS] *= 0.25
    save_file(weights, folder / "model.safetensors")
    arguments = ["check", str(folder), "--baseline", str(blessed), "--device", "cpu", "--json"]
    assert main([*arguments, "--changed"]) == 1
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)["lines"]}
    assert lines["Drift"]["verdict"] == "pass"
    assert lines[TASK]["verdict"] == "regressed" and lines[TASK]["difference"] < 0
    # One that claims to be the blessed model is not even scored.
    assert main(arguments) == 1
    assert [line["column"] for line in json.loads(capsys.readouterr().out)["lines"]] == ["Drift"]
