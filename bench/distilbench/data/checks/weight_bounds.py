"""A model folder whose config.json asks for far more than its weights hold, refused before a module is built."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError

LONGEST_HEADER = 2**24
"""Bytes. Those of the largest models have a fiftieth of it; safetensors itself takes six times as many."""
LAYERS = ("layers", "layer", "groups", "group_num", "networks")
SIZES = ("size", "dim", "heads", "model", "ff", "kv")
"""Last words of settings that are sizes of tensors, in whatever way an architecture names them."""
NO_SIZES = ("kernel_size",)
POSITIONS = "position_embeddings"
SMALL = 4096
"""A size that costs little, and that may be a default which the architecture does not use."""
MOST_POSITIONS = 2**20
"""Of a model without a table of positions."""
SPARE = 4
"""Numbers of a model for each that is stored: a head or tied weights may be left out of a file."""
SMALL_MODEL = 2**24


def check_sizes(folder: Path) -> None:
    """Raise `UserError` for a setting of config.json that the shapes in the weights files rule out."""
    shapes = stored_shapes(folder)
    # Of a damaged file, the loader says what is wrong with it.
    if not shapes:
        return
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    table = any(POSITIONS in name for name in shapes)
    path = folder / "config.json"
    for name, value in _numbers(json.loads(path.read_text(encoding="utf-8"))):
        word = name.rsplit("_", 1)[-1]
        if name.startswith(("num_", "n_", "inner_", "encoder_", "decoder_")) and name.endswith(LAYERS):
            most, what = len(shapes), f"its weights are {len(shapes)} tensors"
        elif name in ("max_position_embeddings", "n_positions"):
            most = max(largest, SMALL) if table else MOST_POSITIONS
            what = f"no model of these weights takes more than {most}"
        elif word in SIZES and not name.endswith(NO_SIZES):
            most, what = max(largest, SMALL), f"no side of a tensor in its weights is longer than {largest}"
        else:
            continue
        if value > most:
            raise UserError(f"{path} has the {name} {value}, but {what}; save the model anew")


def check_numbers(folder: Path, model: Any) -> None:
    """Raise `UserError` for a model, on `meta`, of far more numbers than the weights files hold."""
    stored = sum(math.prod(shape) for shape in stored_shapes(folder).values())
    asked = sum(weight.numel() for weight in model.parameters())
    if stored and asked > max(SPARE * stored, SMALL_MODEL):
        raise UserError(
            f"{folder}/config.json asks for a model of {asked} numbers, but its weights hold {stored}; save the model "
            "anew"
        )


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in the weights of a folder, from the heads of the files; a damaged file has none.

    Raises `UserError` for a head that is too long to be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > path.stat().st_size:
                    return {}
                if length > LONGEST_HEADER:
                    raise UserError(
                        f"{path} has a head of {length} bytes, more than {LONGEST_HEADER}; save the model anew"
                    )
                head = json.loads(file.read(length))
            head.pop("__metadata__", None)
            shapes |= {name: tuple(int(size) for size in entry["shape"]) for name, entry in head.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}
    return shapes


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a config, those of the mappings in it too."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(name), value
