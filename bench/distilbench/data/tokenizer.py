"""The tokenizer of a model folder, and how a model reads texts with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilbench.data.checks.folder_checks import is_static, transformer_folder
from distilbench.data.stored_model import open_model


@dataclass(frozen=True)
class TextReader:
    """How a model reads a text: by its tokenizer, with a prompt before it."""

    folder: Path
    tokenizer_sha256: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    """What stands before texts of no side."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for readers that make the same tokens of every text."""
        pairs = (part for pair in sorted(self.prompts.items()) for part in pair)
        return (self.tokenizer_sha256, self.default_prompt, *pairs)

    def prompt(self, side: str | None) -> str:
        """What stands before texts of a side."""
        return self.default_prompt if side is None else self.prompts.get(side, "")

    def reads_as(self, other: TextReader, sides: Iterable[str | None]) -> bool:
        """Whether both cut texts of these sides into the same tokens."""
        same = self.tokenizer_sha256 == other.tokenizer_sha256
        return same and all(self.prompt(side) == other.prompt(side) for side in sides)

    def tokenizer(self) -> Any:
        """The tokenizer, loaded anew: encoding leaves settings in it."""
        return load_tokenizer(self.folder)


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder, with what the folder's settings add to it."""
    opened = open_model(folder)
    if is_static(folder):
        return _without_special_tokens(transformer_folder(folder), deepcopy(opened[0].tokenizer))
    return deepcopy(opened.tokenizer)


def _without_special_tokens(place: Path, tokenizer: Any) -> Any:
    """As sentence-transformers' StaticEmbedding reads texts."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    named = (place / "tokenizer_config.json").is_file()
    plain = (
        # Its names of special tokens, such as the padding's, lie beside it.
        AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        if named
        else PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    )
    plain.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return plain
