"""A small study with every method that keeps state, and whether two of its results are the same to the last bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import load_file

from distilbench.core.sealed import damage

WORDS = "the of to in is was a dog cat house tree river bird stone water fire old new red green runs sees finds sings"
METHODS: list[Any] = [
    "mse",
    "codir",
    {"codir-slow-bank": {"method": "codir", "bank_momentum": 0.5, "symmetric": True}},
    {"codir-code": {"num_negatives": 40}},
    {"crd": {"num_negatives": 40}},
    {"ckd": {"queue_size": 48}},
    {"hpd": {"width": 8}},
    "mse-pca",
    {"internal-kd-pid": {"epochs_per_layer": 0.05}},
    {"internal-kd-sid": {"epochs_per_layer": 0.05, "freeze_below": True}},
    "simcse-mlm",
    {"ibkd-median": {"extra_negatives": 4}},
    {"matryoshka": {"base": "ckd", "widths": [8]}},
    {"two-stages": ["leaf", {"simcse-supervised": {"share": 0.4, "hard_negatives": False}}]},
]
UNSTABLE = {"seconds", "speed", "peak_memory_bytes", "environment", "evaluation_time", "date", "evaluation_phases"}
"""What is measured anew in every run: times, memory, the machine."""


def chosen(labels: list[str]) -> list[Any]:
    """The rows with these labels, or all."""
    return [row for row in METHODS if not labels or (row if isinstance(row, str) else next(iter(row))) in labels]


def make(folder: Path, methods: list[Any] = METHODS) -> Path:
    """Write a random teacher, text, labelled text and the study; returns the study's file."""
    _write_teacher(folder / "teacher")
    lines, rows = sentences(300, 0), sentences(60, 1)
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = {"anchor": rows, "positive": [" ".join(text.split()[::-1]) for text in rows], "negative": lines[:60]}
    pd.DataFrame(table).to_csv(folder / "rows.csv", index=False)
    study = {
        "name": "torture",
        "teacher": str(folder / "teacher"),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(folder / "text.txt")},
        "labelled": {"source": str(folder / "rows.csv")},
        "dev": {"source": str(folder / "rows.csv"), "columns": ["anchor", "positive", "negative"], "points": 3},
        "static": {"width": 8},
        "budget": {"sentences": 384},
        "methods": methods,
        "seeds": 1,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 48, "checkpoint": "best-on-dev"},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def sentences(count: int, seed: int) -> list[str]:
    """Distinct sentences of a few words."""
    rng, words, made = random.Random(seed), WORDS.split(), dict[str, None]()
    while len(made) < count:
        made[" ".join(rng.choices(words, k=rng.randint(3, 12)))] = None
    return list(made)


def _write_teacher(folder: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from distilbench.models.encoder import Encoder, Normalize
    from distilbench.models.export import export

    folder.parent.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder.parent / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
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
    export(teacher, BertTokenizerFast(vocab=str(folder.parent / "vocab.txt")), folder, "# A random teacher\n")


def completed(results: Path) -> dict[str, str]:
    """Run ids of the sound, completed records below a folder, with the hash sums of what they hold."""
    found = {}
    for path in results.glob("*/[!.]*/record.json"):
        if damage(path.parent) is None and json.loads(path.read_text(encoding="utf-8"))["status"] == "completed":
            found[path.parent.name] = (path.parent / "SHA256SUMS").read_text(encoding="utf-8")
    return found


def differences(one: Path, two: Path) -> list[str]:
    """Where the results and trained models below two folders differ in anything but times, memory and machine."""
    found = []
    for pattern in ("results/*/*/*", "results/*/*/mteb/*", "cache/runs/*/**/*"):
        names = [{str(path.relative_to(side)) for path in side.glob(pattern) if _counts(path)} for side in (one, two)]
        found += sorted(names[0] ^ names[1])
        found += [name for name in sorted(names[0] & names[1]) if not equal(one / name, two / name)]
    return found


def _counts(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts[-4:])
    return path.is_file() and path.name != "SHA256SUMS" and not hidden


def equal(one: Path, two: Path) -> bool:
    """Whether two files hold the same, but for times, memory and machine."""
    if one.suffix == ".json":
        return bool(_stable(json.loads(one.read_bytes())) == _stable(json.loads(two.read_bytes())))
    if one.suffix == ".parquet":
        first, second = (pd.read_parquet(path).drop(columns="seconds", errors="ignore") for path in (one, two))
        return first.equals(second)
    if one.suffix == ".safetensors":
        tensors, others = load_file(one), load_file(two)
        same = tensors.keys() == others.keys()
        return same and all(torch.equal(tensors[name], others[name]) for name in tensors)
    return one.read_bytes() == two.read_bytes()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in UNSTABLE}
    return [_stable(item) for item in value] if isinstance(value, list) else value
