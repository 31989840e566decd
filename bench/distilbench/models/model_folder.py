"""Model folders as sentence-transformers lays them out: what identifies one, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel

from distilbench.core.errors import UserError
from distilbench.core.hashes import folder_sha256
from distilbench.data.tokenizer import CODE_OF_ITS_OWN, in_short, read_json, tokenizer_hash
from distilbench.models.encoder import Dense, Encoder, Normalize, drop_pooler
from distilbench.models.token_table import TokenTable
from distilbench_methods.pooling import LayerPooling

# Modules may lie in folders of any name, so every folder counts.
WEIGHTS = ("**/*.safetensors",)
STRUCTURE = ("**/config.json", "modules.json", "sentence_*_config.json")
DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class StoredModel:
    """A model folder on disk, with the hashes that identify it."""

    name: str
    folder: Path

    def hashes(self) -> dict[str, str]:
        """Hashes of weights, tokenizer and structure (layers, pooling, heads, maximum length)."""
        return {
            "weights": folder_sha256(self.folder, WEIGHTS),
            "tokenizer": tokenizer_hash(self.folder),
            "structure": folder_sha256(self.folder, STRUCTURE),
        }


def load_encoder(folder: Path) -> Encoder:
    """Load a sentence-transformers folder, or a plain transformer (then mean-pooled).

    Raises `UserError` for folders without safetensors weights and for modules that are not known here.
    """
    modules = _listed_modules(folder)
    if modules and modules[0][0] == "StaticEmbedding":
        return _load_static(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is not a model folder; give one saved by save_pretrained")
    # Read for its errors: they name the file, where those of transformers do not always.
    read_json(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        pickles = [f" ({path.name} is a pickle, which distilbench never opens)" for path in folder.glob("*.bin")]
        raise UserError(
            f"{folder} has no .safetensors weights{''.join(pickles[:1])}; save the model with save_pretrained and try "
            "again"
        )
    pooling, head = _modules(folder)
    if read_json(folder / "config_sentence_transformers.json").get("default_prompt_name"):
        raise UserError(
            f"{folder} puts a prompt before every text, which distilbench does not do yet; choose another model"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        backbone, found = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    # Of a damaged file, each architecture raises what it likes.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UserError(f"{folder}/config.json {CODE_OF_ITS_OWN}") from None
        raise UserError(f"the model in {folder} cannot be loaded: {in_short(error)}") from None
    if other := sorted(str(key[0]) for key in found["mismatched_keys"]):
        raise UserError(
            f"{folder} has {len(other)} weights of other shapes than its config.json asks for, such as {other[0]}; "
            "save the model anew"
        )
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}; save it anew")
    drop_pooler(backbone)
    return Encoder(backbone, pooling=pooling, head=head, max_length=_max_length(folder, config)).eval()


def _load_static(folder: Path) -> Encoder:
    from safetensors.torch import load_file

    try:
        table_VS = load_file(folder / "model.safetensors")["embedding.weight"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(f"the token vectors in {folder} cannot be loaded: {in_short(error)}") from None
    pooling, head = _modules(folder)
    return Encoder(TokenTable(table_VS), pooling=pooling, head=head, max_length=_max_length(folder, None)).eval()


def _max_length(folder: Path, config: Any) -> int:
    path = folder / "sentence_bert_config.json"
    stored = read_json(path).get("max_seq_length")
    if stored and not (isinstance(stored, int) and stored > 0):
        raise UserError(f"{path} has the max_seq_length {stored!r}; give a number of tokens")
    return int(stored or min(getattr(config, "max_position_embeddings", DEFAULT_MAX_LENGTH), DEFAULT_MAX_LENGTH))


def _modules(folder: Path) -> tuple[LayerPooling, nn.Module]:
    pooling: LayerPooling = "mean"
    head: list[nn.Module] = []
    for kind, place in _listed_modules(folder)[1:]:
        if kind == "Pooling":
            pooling = _pooling(place / "config.json")
        elif kind == "Normalize":
            head.append(Normalize())
        elif kind == "Dense":
            head.append(_dense(place))
        else:
            raise UserError(
                f"{folder}/modules.json has a {kind} module, which distilbench cannot run; choose another model"
            )
    return pooling, nn.Sequential(*head)


def _listed_modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module of a sentence-transformers folder, the transformer first."""
    path = folder / "modules.json"
    try:
        found = [(entry["type"].rsplit(".", 1)[-1], folder / entry["path"]) for entry in read_json(path, default=[])]
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is no list of modules with type and path; save the model anew") from None
    # What lies elsewhere would be no part of the hashes that identify the model.
    for _, place in found:
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} names {place}, which is outside of the folder; save the model anew")
    return found


def _pooling(path: Path) -> LayerPooling:
    config = read_json(path)
    modes = [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    modes = modes or [str(config.get("pooling_mode", "mean"))]
    if modes in (["mean_tokens"], ["mean"]):
        return "mean"
    if modes in (["cls_token"], ["cls"]):
        return "cls"
    raise UserError(f"{path} asks for {' + '.join(modes)} pooling; distilbench knows mean and cls")


def _dense(folder: Path) -> Dense:
    from safetensors.torch import load_file

    config = read_json(folder / "config.json")
    name = config.get("activation_function", "torch.nn.modules.linear.Identity").rsplit(".", 1)[-1]
    if name not in ("Identity", "Tanh", "GELU", "ReLU"):
        raise UserError(f"{folder}/config.json has the activation {name}, which distilbench does not know")
    try:
        linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        weights = load_file(folder / "model.safetensors")
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"the Dense module in {folder} cannot be loaded: {in_short(error)}") from None
    return Dense(linear, getattr(nn, name)())
