"""A config.json that asks for far more than the weights hold is refused before memory or time is spent on it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from distilbench.core.errors import UserError
from distilbench.models.model_folder import load_encoder
from tests.models.families import FAMILIES, make_family

ABSURD = 1_000_000_000
LONGEST = 2.0
"""Seconds."""


def set_config(folder: Path, **values: int) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.fixture
def folder(teacher_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(teacher_folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 1_000_000),
        ("hidden_size", ABSURD),
        ("vocab_size", ABSURD),
        ("intermediate_size", ABSURD),
        ("max_position_embeddings", ABSURD),
        ("num_attention_heads", ABSURD),
        ("type_vocab_size", ABSURD),
    ],
)
def test_absurd_sizes_are_refused_at_once(folder: Path, name: str, value: int) -> None:
    set_config(folder, **{name: value})
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"config\.json has the {name} {value}, but .*; save the model anew$"):
        load_encoder(folder)
    assert time.monotonic() - start < LONGEST


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("distilbert", "n_layers"),
        ("distilbert", "dim"),
        ("distilbert", "hidden_dim"),
        ("t5", "num_layers"),
        ("t5", "d_model"),
        ("t5", "d_ff"),
        ("t5", "d_kv"),
        ("albert", "num_hidden_groups"),
        ("albert", "inner_group_num"),
        ("mobilebert", "num_feedforward_networks"),
        ("qwen3", "head_dim"),
        ("qwen3", "max_position_embeddings"),
    ],
)
def test_whatever_a_family_calls_them(tmp_path: Path, family: str, name: str) -> None:
    folder = make_family(family, tmp_path)
    set_config(folder, **{name: ABSURD})
    with pytest.raises(UserError, match=rf"has the {name} {ABSURD}, but"):
        load_encoder(folder)


def test_sizes_that_are_large_only_together(folder: Path) -> None:
    set_config(folder, hidden_size=4096, intermediate_size=4096)
    with pytest.raises(UserError, match=r"config\.json asks for a model of .* numbers, but its weights hold"):
        load_encoder(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_folders_load(tmp_path: Path, family: str) -> None:
    load_encoder(make_family(family, tmp_path))
