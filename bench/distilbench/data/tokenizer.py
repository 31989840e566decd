"""The tokenizer of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilbench.data.folder_checks import is_static, transformer_folder
from distilbench.data.stored_model import hashes_of, open_model


def tokenizer_hash(folder: Path) -> str:
    """Hash of the tokenizer of a model folder."""
    return hashes_of(folder)["tokenizer"]


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder, with what the folder's settings add to it."""
    opened = open_model(folder)
    if is_static(folder):
        return _without_special_tokens(transformer_folder(folder), opened[0].tokenizer)
    return opened.tokenizer


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
