"""A model folder's transformer, pooling and head as one ONNX graph, for runtimes without torch.

Shapes: B sentences, T tokens, S width of the transformer, E width of the vector that ships.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench.models.parts.pooling import pool

GRAPH = Path("onnx", "model.onnx")
"""Where sentence-transformers and optimum look for it."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("last_hidden_state", "sentence_embedding")
TOLERANCE = 1e-5
"""The largest difference of unit vectors that is put down to the runtimes' rounding."""
SAMPLE = (
    ("A cat sits on the mat.",),
    ("Short.", "A longer sentence, so that the other ones of its batch are padded.", "Numbers: 3.14 and 42."),
    ("word " * 200, "Truncated where the model's maximum length is shorter."),
)
"""Batches of one sentence and of several, with padding and with truncation."""


class _Graph(nn.Module):
    """[B, T] token ids and mask -> [B, T, S] hidden states and [B, E] sentence vectors."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BTS = self.model.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden_BTS, self.model.head(pool(hidden_BTS, attention_mask, self.model.pooling))


def require_onnx() -> None:
    """Raise `UserError` where a package that the export needs is not installed."""
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"--onnx needs {', '.join(absent)}; run: pip install 'distilbench[onnx]'")


def write_onnx(folder: Path) -> float:
    """Add `onnx/model.onnx` to a model folder: fp32, any batch size and length.

    Inputs `input_ids` and `attention_mask`, int64 [B, T]; outputs `last_hidden_state` [B, T, S], which
    sentence-transformers' ONNX backend pools by itself, and `sentence_embedding` [B, E], the vector that ships.

    Returns the largest difference between the graph's vectors and torch's, both scaled to unit length. Raises
    `UserError` when packages are missing, and when that difference is more than rounding.
    """
    require_onnx()
    model, tokenizer = load_encoder(folder).eval(), load_tokenizer(folder)
    path = folder / GRAPH
    path.parent.mkdir(exist_ok=True)
    example = _tokens(tokenizer, SAMPLE[1], model.max_length)
    axes = {0: "batch", 1: "tokens"}
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            _Graph(model),
            tuple(example[name] for name in INPUTS),
            dynamo=True,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            verbose=False,
        )
        assert program is not None
        program.save(path)
    difference = _difference(path, model, tokenizer)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the ONNX graph gives other vectors than torch: they are {difference:.1e} apart, where rounding allows "
            f"{TOLERANCE:.0e}; export without --onnx"
        )
    return difference


def _difference(path: Path, model: Encoder, tokenizer: Any) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = torch.zeros(())
    for texts in SAMPLE:
        tokens = _tokens(tokenizer, texts, model.max_length)
        (found,) = session.run([OUTPUTS[1]], {name: tokens[name].numpy() for name in INPUTS})
        with torch.no_grad():
            expected_BE = model(*(tokens[name] for name in INPUTS)).final
        pair = [nn.functional.normalize(vectors, dim=-1) for vectors in (torch.from_numpy(found), expected_BE)]
        # `maximum` keeps what is no number, which `max` may drop.
        largest = torch.maximum(largest, (pair[0] - pair[1]).abs().max())
    return float(largest)


def _tokens(tokenizer: Any, texts: tuple[str, ...], max_length: int) -> dict[str, Tensor]:
    return dict(tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's advice on packages of its own from the user's console."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            exporter.setLevel(level)
