"""Model folders as sentence-transformers lays them out: what identifies one, and how it becomes an `Encoder`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from distilbench.core.errors import UserError
from distilbench.data import stored_model
from distilbench.data.folder_checks import is_static, listed_modules, transformer_folder
from distilbench.data.stored_model import in_short, open_model
from distilbench.data.tokenizer import TextReader
from distilbench.models.encoder import Dense, Encoder, Normalize, Similarity, drop_pooler
from distilbench.models.parts.pooling import Pooling
from distilbench.models.parts.token_table import TokenTable
from distilbench.study.sections.models import PoolingMode

SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class StoredModel:
    """A model folder on disk, with the hashes that identify it."""

    name: str
    folder: Path

    def hashes(self) -> dict[str, str]:
        """Hashes of weights, tokenizer and structure; see `distilbench.data.stored_model.hashes_of`."""
        return stored_model.hashes_of(self.folder)

    def reader(self, shape: Encoder | None = None) -> TextReader:
        """How the model reads texts; `shape` is the model, where it is loaded already."""
        shape = shape or load_encoder(self.folder, weights=False)
        sha256 = stored_model.tokenizer_sha256(self.folder)
        return TextReader(self.folder, sha256, shape.prompts, shape.default_prompt)


def load_encoder(folder: Path, *, weights: bool = True) -> Encoder:
    """A model folder in float32, on the CPU; a plain transformer is mean-pooled.

    Without weights it lies on the device `meta`: shapes, lengths and prompts are there, vectors are not. Raises
    `UserError` for what sentence-transformers, or distilbench, cannot run.
    """
    opened = open_model(folder)
    if is_static(folder):
        backbone: Any = TokenTable(opened[0].embedding.weight.detach())
        pooling: Pooling = "mean"
    else:
        backbone = _backbone(folder, opened[0].model) if weights else opened[0].model
        drop_pooler(backbone)
        pooling = _pooling(opened[1])
    encoder = Encoder(
        backbone,
        pooling=pooling,
        head=nn.Sequential(*head) if (head := list(_head(folder, opened))) else None,
        max_length=sys.maxsize,
        prompts={name: prompt for name, prompt in opened.prompts.items() if prompt is not None},
        default_prompt_name=opened.default_prompt_name,
        similarity=_similarity(folder, opened.similarity_fn_name),
    )
    encoder.max_length = stored_model.max_length(folder, opened, encoder.max_positions)
    stored_model.check_tokens(folder, opened, encoder.vocabulary)
    return encoder.eval()


def _backbone(folder: Path, empty: Any) -> Any:
    """The transformer that sentence-transformers would make, with its weights."""
    try:
        backbone, loading = type(empty).from_pretrained(
            transformer_folder(folder),
            config=empty.config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    # Of a damaged file, each architecture raises what it likes.
    except Exception as error:
        raise UserError(f"the model in {folder} cannot be loaded: {in_short(error)}") from None
    if other := sorted(str(key[0]) for key in loading["mismatched_keys"]):
        raise UserError(
            f"{folder} has {len(other)} weights of other shapes than its config.json asks for, such as {other[0]}; "
            "save the model anew"
        )
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise UserError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}; save it anew")
    return backbone


def _pooling(module: Any) -> Pooling:
    mode = module.pooling_mode
    modes: tuple[PoolingMode, ...] = (mode,) if isinstance(mode, str) else tuple(mode)  # type: ignore[assignment]
    return modes[0] if len(modes) == 1 else modes


def _head(folder: Path, opened: Any) -> Iterator[nn.Module]:
    """What stands behind the pooling; read anew, since what was opened has no weights."""
    for (kind, place), module in zip(listed_modules(folder), opened, strict=False):
        if kind == "Normalize":
            yield Normalize()
        elif kind == "Dense":
            try:
                dense = type(module).load(str(place), local_files_only=True)
            # Of a damaged file, torch and safetensors raise what they like.
            except Exception as error:
                raise UserError(f"the Dense module in {place} cannot be loaded: {in_short(error)}") from None
            yield Dense(dense.linear, dense.activation_function)


def _similarity(folder: Path, name: str | None) -> Similarity:
    if name not in (None, *SIMILARITIES):
        raise UserError(
            f"{folder}/config_sentence_transformers.json asks for {name} similarity; distilbench knows "
            f"{' and '.join(SIMILARITIES)}"
        )
    return cast(Similarity, name or "cosine")
