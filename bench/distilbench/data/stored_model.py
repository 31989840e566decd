"""A model folder as sentence-transformers reads it: what identifies it, and how it is opened."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.hashes import folder_sha256, key_of
from distilbench.core.libraries import collector_at_rest
from distilbench.data.checks.folder_checks import (
    CODE_OF_ITS_OWN,
    SETTINGS,
    check_modules,
    is_static,
    read_json,
    transformer_folder,
)
from distilbench.data.checks.weight_bounds import check_numbers

# Modules may lie in folders of any name, so every folder counts.
WEIGHTS = ("**/*.safetensors", "**/*.safetensors.index.json")
TOKENIZER = (
    "**/tokenizer*",
    "**/vocab*",
    "**/special_tokens_map.json",
    "**/added_tokens.json",
    "**/*.model",
    "**/merges.txt",
)
STRUCTURE = ("**/config.json", "modules.json", "**/sentence_*_config.json", "config_sentence_transformers.json")
LONGEST = sys.maxsize
KEPT_OPEN = 4
"""Folders that are not opened anew as long as nothing in them changes."""
HASHES_KEPT = 64
FolderState = tuple[tuple[str, int, int, int], ...]
"""Path, size, time of change and number of each file."""


def hashes_of(folder: Path) -> dict[str, str]:
    """Hashes of weights, tokenizer and structure (layers, pooling, heads, lengths, prompts)."""
    return {
        "weights": weights_sha256(folder),
        "tokenizer": tokenizer_sha256(folder),
        "structure": folder_sha256(folder, STRUCTURE),
    }


def weights_sha256(folder: Path) -> str:
    """Hash of the weights of a model folder, and of which file each is read from."""
    return _weights_sha256(folder, _state(folder))


@lru_cache(maxsize=HASHES_KEPT)
def _weights_sha256(folder: Path, state: FolderState) -> str:
    """`state` of its files: gigabytes are not read anew as long as that is the same."""
    return folder_sha256(folder, WEIGHTS)


def _state(folder: Path) -> FolderState:
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple((str(path), found.st_size, found.st_mtime_ns, found.st_ino) for path, found in files)


def tokenizer_sha256(folder: Path) -> str:
    """Hash of the tokenizer of a model folder, and of what the folder's settings add to it."""
    files, static = folder_sha256(folder, TOKENIZER), is_static(folder)
    lower_case = any(read_json(path).get("do_lower_case") for path in transformer_folder(folder).glob(SETTINGS))
    return key_of(files=files, lower_case=lower_case, static=static) if lower_case or static else files


def open_model(folder: Path) -> Any:
    """The folder as a `SentenceTransformer`, on the CPU; the transformer itself has no weights, and is on `meta`.

    It is shared: copy what is to be changed. Raises `UserError` for what cannot be opened, for what must not be, and
    for what distilbench does not do.
    """
    check_modules(folder)
    return _opened(folder, _state(folder))


@lru_cache(maxsize=KEPT_OPEN)
def _opened(folder: Path, state: FolderState) -> Any:
    """`state` of its files: what is kept is that of a folder as it was."""
    place = check_modules(folder)
    try:
        with collector_at_rest():
            from sentence_transformers import SentenceTransformer

        options: dict[str, Any] = {"use_safetensors": True, "dtype": "float32"}
        if place is not None:
            options |= {"device_map": "meta", "ignore_mismatched_sizes": True}
        opened = SentenceTransformer(
            str(folder),
            # Of two places for the weights, it would warn.
            device="cpu" if place is None else None,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=options,
        )
    # Of a damaged file, each architecture and each tokenizer raises what it likes.
    except Exception as error:
        raise UserError(_why_not(folder, place, error)) from None
    _check_opened(folder, place, opened)
    return opened


def max_length(folder: Path, opened: Any, positions: int) -> int:
    """Tokens at which texts are cut, special ones included, for a transformer with so many positions.

    Raises `UserError` where the folder states more than that.
    """
    if is_static(folder):
        truncation = opened[0].tokenizer.truncation
        return int(truncation["max_length"]) if truncation else LONGEST
    for path in sorted(transformer_folder(folder).glob(SETTINGS)):
        stated = read_json(path).get("max_seq_length")
        if stated is not None and not (isinstance(stated, int) and not isinstance(stated, bool) and stated > 0):
            raise UserError(f"{path} has the max_seq_length {stated!r}; give a number of tokens")
        if stated is not None and stated > positions:
            raise UserError(
                f"{path} has the max_seq_length {stated}, but the model takes {positions} tokens; set it to that"
            )
    return min(int(opened[0].max_seq_length or LONGEST), positions)


def check_tokens(folder: Path, opened: Any, vocabulary: int) -> None:
    """Raise `UserError` for a tokenizer that gives ids for which the model, of so many token vectors, has none."""
    known = opened[0].tokenizer.get_vocab()
    if beyond := sorted((number, token) for token, number in known.items() if number >= vocabulary):
        rows = beyond[-1][0] + 1
        raise UserError(
            f"the tokenizer in {folder} has {len(beyond)} tokens for which the model has no vector, such as "
            f"{beyond[0][1]!r}; call resize_token_embeddings({rows}) on the model and save it anew"
        )


def _check_opened(folder: Path, place: Path | None, opened: Any) -> None:
    if place is None:
        return
    check_numbers(place, opened[0].model)
    if not opened.tokenizer.is_fast:
        raise UserError(f"the tokenizer in {folder} has no fast version; save one with tokenizers and try again")
    if opened.tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer in {folder} has no padding token; set its pad_token and save it again")


def _why_not(folder: Path, place: Path | None, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return f"{folder}/config.json {CODE_OF_ITS_OWN}"
    if place is not None and _tokenizer_fails(place):
        return f"{folder} holds no tokenizer that can be loaded: {in_short(error)}"
    return f"the model in {folder} cannot be loaded: {in_short(error)}"


def _tokenizer_fails(place: Path) -> bool:
    from transformers import AutoConfig, AutoTokenizer

    def opens(kind: Any) -> bool:
        try:
            kind.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        # The library in Rust behind tokenizers raises plain exceptions.
        except Exception:
            return False
        return True

    return opens(AutoConfig) and not opens(AutoTokenizer)


def in_short(error: Exception) -> str:
    """The first lines of a library's error."""
    return f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split("\n")[:2])
