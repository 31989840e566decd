"""Other ways to make a model's vectors: the one that gives a published score tells what differs from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.models.embed import tokens_per_pass
from distilbench.models.encoder import Dense, Encoder, Normalize
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.study.sections.models import PoolingMode

LENGTHS = (32, 64, 128, 256, 512)
PROMPTS = ("query: ", "passage: ")
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Variant:
    """One way to make vectors that differs from the model folder's."""

    name: str
    """As in "with ... the published figure comes out"."""
    cause: str
    """What is then wrong with the folder, or with its figure."""
    change: Callable[[Encoder], Any] = lambda _: None
    """Changes a copy of the encoder in place."""
    padding: bool = True


class VariantEncoder(BenchEncoder):
    """As the evaluation's encoder, perhaps with no two lengths in one batch."""

    def __init__(self, model: StoredModel, encoder: Encoder, variant: Variant) -> None:
        super().__init__(encoder, load_tokenizer(model.folder), "variant", "variant")
        self._variant = variant

    def batches(self, lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        if self._variant.padding:
            yield from super().batches(lengths_N)
            return
        tokens = tokens_per_pass(self.model.device)
        for length in np.unique(lengths_N):
            rows = np.flatnonzero(lengths_N == length)
            yield from np.array_split(rows, range(max(1, tokens // length), len(rows), tokens))


def variants(model: StoredModel, device: str) -> Iterator[tuple[Variant, VariantEncoder]]:
    """Every variant that can give other scores than the model does, the likeliest fault first."""
    encoder = load_encoder(model.folder)
    for variant in [
        *_pooling(encoder),
        *_padding(),
        *_head(encoder),
        *_length(encoder),
        *_prompts(encoder),
        *_dtype(),
    ]:
        changed = copy.deepcopy(encoder)
        variant.change(changed)
        yield variant, VariantEncoder(model, changed.to(device), variant)


def _pooling(encoder: Encoder) -> list[Variant]:
    other: PoolingMode = "cls" if encoder.pooling == "mean" else "mean"

    def change(changed: Encoder) -> None:
        changed.pooling = other

    own = encoder.pooling if isinstance(encoder.pooling, str) else " + ".join(encoder.pooling)
    cause = f"the folder's Pooling module asks for {own} pooling; mend its 1_Pooling/config.json"
    return [Variant(f"{other} pooling", cause, change)]


def _padding() -> list[Variant]:
    cause = "padding leaks into the vectors: a mean is taken over padding too, or attention sees it"
    return [Variant("batches without padding", cause, padding=False)]


def _head(encoder: Encoder) -> list[Variant]:
    """The cosine does not see a scaling at the end, but sees one before a Dense module."""
    parts = list(encoder.head) if isinstance(encoder.head, nn.Sequential) else [encoder.head]
    dense = [place for place, part in enumerate(parts) if isinstance(part, Dense)]
    if not dense:
        return []
    scaled = any(isinstance(part, Normalize) for part in parts[: dense[0]])
    without = [part for part in parts[: dense[0]] if not isinstance(part, Normalize)] + parts[dense[0] :]
    within = [*parts[: dense[0]], Normalize(), *parts[dense[0] :]]

    def rescale(changed: Encoder) -> None:
        changed.head = nn.Sequential(*(without if scaled else within))

    def drop(changed: Encoder) -> None:
        changed.head = nn.Identity()

    what, where = ("no normalisation", "has one") if scaled else ("normalisation", "has none")
    return [
        Variant(f"{what} before the Dense module", f"the folder {where}; mend its modules.json", rescale),
        Variant(
            "no Dense module",
            "the published figure is of the vectors before it, or the module is not the model's",
            drop,
        ),
    ]


def _length(encoder: Encoder) -> list[Variant]:
    lengths = {*LENGTHS, min(encoder.max_positions, LENGTHS[-1])} - {encoder.max_length}

    def to(length: int) -> Callable[[Encoder], None]:
        return lambda changed: setattr(changed, "max_length", length)

    cause = (
        f"texts are cut at {encoder.max_length} tokens; mend max_seq_length in the folder's sentence_bert_config.json"
    )
    fitting = sorted(length for length in lengths if length <= encoder.max_positions)
    return [Variant(f"a maximum length of {length} tokens", cause, to(length)) for length in reversed(fitting)]


def _prompts(encoder: Encoder) -> list[Variant]:
    def to(prompt: str) -> Callable[[Encoder], Any]:
        return lambda changed: changed.put_before_all(prompt)

    cause = "the published figure was made with this prompt before every text, which the folder does not ask for"
    found = [
        Variant(f"the prompt {prompt!r}", cause, to(prompt))
        for prompt in dict.fromkeys([*encoder.prompts.values(), *PROMPTS])
        if prompt
    ]
    if any(encoder.prompts.values()):
        cause = "the published figure was made without the folder's prompts"
        found.append(Variant("no prompt before any text", cause, to("")))
    return found


def _dtype() -> list[Variant]:
    def to(dtype: torch.dtype) -> Callable[[Encoder], Any]:
        return lambda changed: changed.to(dtype)

    cause = "the published figure was made in half precision"
    return [Variant(name, cause, to(dtype)) for name, dtype in HALF.items()]
