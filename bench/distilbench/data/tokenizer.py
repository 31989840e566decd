"""The tokenizer of a model folder, and what reading the folder's other files shares with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from distilbench.core.errors import UserError
from distilbench.core.hashes import folder_sha256

FILES = ("tokenizer*", "vocab*", "special_tokens_map.json", "added_tokens.json", "*.model", "merges.txt")
CODE_OF_ITS_OWN = "asks for code of its own (auto_map), which distilbench never runs; choose a model that needs none"


def tokenizer_hash(folder: Path) -> str:
    """Hash of the tokenizer of a model folder."""
    return folder_sha256(folder, FILES)


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder."""
    if "auto_map" in read_json(folder / "tokenizer_config.json"):
        raise UserError(f"{folder}/tokenizer_config.json {CODE_OF_ITS_OWN}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True, trust_remote_code=False)
    # The library in Rust behind it raises plain exceptions.
    except Exception as error:
        raise UserError(f"{folder} holds no tokenizer that can be loaded: {in_short(error)}") from None
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer in {folder} has no fast version; save one with tokenizers and try again")
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer in {folder} has no padding token; set its pad_token and save it again")
    return tokenizer


def read_json(path: Path, default: Any = None) -> Any:
    """A file of a model folder; `default` where there is none. Raises `UserError` for what is not of that type."""
    expected = {} if default is None else default
    if not path.is_file():
        return expected
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}; save the model anew") from None
    if not isinstance(value, type(expected)):
        raise UserError(f"{path} holds no {'list' if isinstance(expected, list) else 'mapping'}; save the model anew")
    return value


def in_short(error: Exception) -> str:
    """The first lines of a library's error."""
    return f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split("\n")[:2])
