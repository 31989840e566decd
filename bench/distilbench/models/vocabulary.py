"""A model with fewer token vectors: those of special tokens, of letters or bytes, and of a text's frequent tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.export import export
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.records.record import dump_json

BYTES = frozenset(f"<0x{number:02X}>" for number in range(256))


def write_pruned(model: StoredModel, counts_V: NDArray[np.int64], size: int, folder: Path) -> None:
    """Write the model with at most `size` token vectors; tokens that fall away are read as those they are made of.

    `counts_V`: how often each token is in the text, [V]. Raises `UserError` for a size that is too small or too large,
    and for tokenizers that cannot be pruned.
    """
    tokenizer, encoder = load_tokenizer(model.folder), load_encoder(model.folder)
    known = tokenizer.get_vocab()
    if size >= len(known):
        raise UserError(
            f"student.vocabulary {size} leaves out none of the {len(known)} tokens of {model.name}; leave it unset"
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = _kept_ids(model.name, state, set(tokenizer.all_special_ids), counts_V, size)
    new = {old: place for place, old in enumerate(kept)}
    _keep_vectors(model.name, encoder.backbone, new)
    card = model.folder / "README.md"
    export(encoder, tokenizer, folder, card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "")
    _renumber(state, new)
    (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    # Of older formats; it names added tokens by their old places.
    settings.pop("added_tokens_decoder", None)
    dump_json(settings, folder / "tokenizer_config.json")
    if load_tokenizer(folder).get_vocab() != {token: new[old] for token, old in known.items() if old in new}:
        raise UserError(
            f"student.vocabulary: the tokenizer of {model.name} ({type(tokenizer).__name__}) has tokens that are not "
            "in its tokenizer.json, so it cannot be pruned; leave student.vocabulary unset"
        )


def _kept_ids(name: str, state: dict[str, Any], special: set[int], counts_V: NDArray[np.int64], size: int) -> list[int]:
    """The tokens that stay, in rising order: special ones, letters or bytes, and the most frequent."""
    model = state["model"]
    vocabulary = _vocabulary(name, model)
    counts = {place: int(counts_V[place]) if place < len(counts_V) else 0 for place in vocabulary.values()}
    kept = special | {added["id"] for added in state["added_tokens"]}
    kept |= {vocabulary[token] for token in _letters(state, [token for token, at in vocabulary.items() if counts[at]])}
    if model.get("unk_token") in vocabulary:
        kept.add(vocabulary[model["unk_token"]])
    if model.get("unk_id") is not None:
        kept.add(model["unk_id"])
    if len(kept) > size:
        raise UserError(
            f"student.vocabulary {size} is less than the {len(kept)} special tokens, letters and bytes that {name} "
            "needs for this text; ask for more"
        )
    parts = _parts(model, vocabulary)
    for place in sorted(vocabulary.values(), key=lambda place: (-counts[place], place)):
        wanted = _made_of(place, parts) - kept
        if len(kept) + len(wanted) <= size:
            kept |= wanted
    return sorted(kept)


def _vocabulary(name: str, model: dict[str, Any]) -> dict[str, int]:
    """Token -> place."""
    affixed = model["type"] == "BPE" and (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
    if model["type"] not in ("WordPiece", "BPE", "Unigram") or affixed:
        kind = "BPE with marks at the ends of words" if affixed else model["type"]
        raise UserError(
            f"student.vocabulary: the tokenizer of {name} is {kind}; only WordPiece, BPE and Unigram can be pruned; "
            "leave student.vocabulary unset"
        )
    vocab = model["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {piece: place for place, (piece, _) in enumerate(vocab)}


def _letters(state: dict[str, Any], seen: list[str]) -> set[str]:
    """What every word can be read by: bytes where the tokenizer falls back on them, and the text's letters."""
    model = state["model"]
    known = _vocabulary("", model)
    prefix = model.get("continuing_subword_prefix") or ""
    letters = {letter for token in seen for letter in token.removeprefix(prefix)}
    letters |= {prefix + letter for letter in letters}
    if model.get("byte_fallback"):
        letters |= BYTES
    if '"ByteLevel"' in json.dumps([state["pre_tokenizer"], state["normalizer"]]):
        letters |= set(ByteLevel.alphabet())
    return letters & known.keys()


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE tokenizer; older files have each as one string."""
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", [])]
    return [(first, second) for first, second in merges]


def _parts(model: dict[str, Any], vocabulary: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Token -> the two that it is first merged from. Of other kinds than BPE, none is needed for another."""
    parts: dict[int, tuple[int, int]] = {}
    for first, second in _pairs(model):
        parts.setdefault(vocabulary[first + second], (vocabulary[first], vocabulary[second]))
    return parts


def _made_of(place: int, parts: Mapping[int, tuple[int, int]]) -> set[int]:
    """A token with all that it is merged from."""
    made, left = set(), [place]
    while left:
        one = left.pop()
        if one not in made:
            made.add(one)
            left += parts.get(one, ())
    return made


def _renumber(state: dict[str, Any], new: Mapping[int, int]) -> None:
    """Give a tokenizer's JSON the kept tokens alone, at their new places."""
    model = state["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for place, entry in enumerate(model["vocab"]) if place in new]
        if model["unk_id"] is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[place] for token, place in model["vocab"].items() if place in new}
    if model["type"] == "BPE":
        whole = model["vocab"].keys()
        model["merges"] = [pair for pair in _pairs(model) if {*pair, "".join(pair)} <= whole]
    for added in state["added_tokens"]:
        added["id"] = new[added["id"]]
    # Whoever reads a batch says how it is padded.
    state["padding"] = None
    state["post_processor"] = _renumbered(state["post_processor"], new)


def _renumbered(node: Any, new: Mapping[int, int]) -> Any:
    """A post-processor, which may be made of others, with the new places of its special tokens."""
    if isinstance(node, list):
        return [_renumbered(part, new) for part in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _renumbered(value, new) for key, value in node.items()}
    if "ids" in node:
        changed["ids"] = [new[place] for place in node["ids"]]
    for key in ("sep", "cls"):
        if key in node:
            token, place = node[key]
            changed[key] = [token, new[place]]
    return changed


def _keep_vectors(name: str, backbone: Any, new: Mapping[int, int]) -> None:
    """Keep the vectors of some tokens, in the order of their new places."""
    table = backbone.get_input_embeddings()
    every, padding = table.weight, table.padding_idx
    rows = nn.Parameter(every.detach()[sorted(new)].clone())
    for module in backbone.modules():
        if not isinstance(module, nn.Embedding):
            continue
        if module.weight is every:
            module.weight, module.num_embeddings = rows, len(rows)
            module.padding_idx = None if padding is None else new.get(padding)
        elif module.padding_idx is not None and new.get(module.padding_idx) != module.padding_idx:
            raise UserError(
                f"student.vocabulary: {name} counts positions from its padding token, which would move; leave "
                "student.vocabulary unset"
            )
    config = getattr(backbone, "config", None)
    if config is not None:
        config.vocab_size = len(rows)
        for key, value in vars(config).items():
            if key.endswith("_token_id") and isinstance(value, int):
                setattr(config, key, new.get(value))
