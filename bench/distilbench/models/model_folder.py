"""Model folders as sentence-transformers lays them out: what identifies one, and how it becomes an `Encoder`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.data import stored_model
from distilbench.data.checks.folder_checks import is_static, listed_modules, transformer_folder
from distilbench.data.stored_model import in_short, open_model
from distilbench.data.tokenizer import TextReader
from distilbench.models.encoder import Dense, Encoder, Normalize, Similarity, Truncate, drop_pooler
from distilbench.models.parts.pooling import Pooling
from distilbench.models.parts.token_table import TokenTable
from distilbench.study.sections.models import PoolingMode
from distilbench.study.sections.training import Precision

SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class StoredModel:
    """A model folder on disk, how it is used, and the hashes that identify both."""

    name: str
    folder: Path
    prompts: Mapping[str, str] | None = None
    """In the place of the folder's own."""
    dtype: Precision = "fp32"
    """Of the transformer; pooling and what follows it stay in float32."""
    truncate: int | None = None
    """Keep this many numbers of each vector, the first."""

    @property
    def as_stored(self) -> StoredModel:
        """The same model with all numbers of its vectors, in float32."""
        return replace(self, dtype="fp32", truncate=None)

    def hashes(self) -> dict[str, str]:
        """Hashes of weights, tokenizer and structure (see `distilbench.data.stored_model.hashes_of`), and of how the
        folder is used, where that is not as it says itself."""
        used = {key: getattr(self, key) for key in ("prompts", "dtype", "truncate")}
        others = {} if used == {"prompts": None, "dtype": "fp32", "truncate": None} else {"used": key_of(**used)}
        return stored_model.hashes_of(self.folder) | others

    def load(self, *, weights: bool = True) -> Encoder:
        """The model on the CPU, as `load_encoder` gives it. Raises `UserError` for what that raises it for, and for
        more numbers than its vectors have."""
        dtype = torch.bfloat16 if self.dtype == "bf16" else torch.float32
        encoder = load_encoder(self.folder, weights=weights, dtype=dtype)
        if self.prompts is not None:
            encoder.prompts, encoder.default_prompt_name = dict(self.prompts), None
        if self.truncate is not None:
            if self.truncate > encoder.output_width():
                raise UserError(
                    f"teacher.truncate {self.truncate} is more than the {encoder.output_width()} numbers of the "
                    f"vectors of {self.name}; ask for less"
                )
            encoder.head = nn.Sequential(encoder.head, Truncate(self.truncate))
        return encoder

    def reader(self, shape: Encoder | None = None) -> TextReader:
        """How the model reads texts; `shape` is the model, where it is loaded already."""
        shape = shape or self.load(weights=False)
        sha256 = stored_model.tokenizer_sha256(self.folder)
        return TextReader(self.folder, sha256, shape.prompts, shape.default_prompt)


def load_encoder(folder: Path, *, weights: bool = True, dtype: torch.dtype = torch.float32) -> Encoder:
    """A model folder on the CPU; a plain transformer is mean-pooled. `dtype` is the transformer's: the rest is float32.

    Without weights it lies on the device `meta`: shapes, lengths and prompts are there, vectors are not. Raises
    `UserError` for what sentence-transformers, or distilbench, cannot run.
    """
    opened = open_model(folder)
    if is_static(folder):
        backbone: Any = TokenTable(opened[0].embedding.weight.detach().clone())
        pooling: Pooling = "mean"
    else:
        backbone = _backbone(folder, opened[0].model, dtype) if weights else deepcopy(opened[0].model)
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


def _backbone(folder: Path, empty: Any, dtype: torch.dtype) -> Any:
    """The transformer that sentence-transformers would make, with its weights."""
    try:
        backbone, loading = type(empty).from_pretrained(
            transformer_folder(folder),
            config=deepcopy(empty.config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
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
