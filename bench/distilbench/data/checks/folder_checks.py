"""What of a model folder is refused by name before it is opened: what is unsafe, and what distilbench does not do.

No code of the folder's own is run, no pickle is opened, and no file outside of the folder is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilbench.core.bounds import check_ordinary, check_size, is_there
from distilbench.core.errors import UserError
from distilbench.data.checks.weight_bounds import check_sizes

CODE_OF_ITS_OWN = "asks for code of its own (auto_map), which distilbench never runs; choose a model that needs none"
PACKAGE = "sentence_transformers."
ACTIVATIONS = "torch.nn.modules."
TASK, VECTOR, STATES = "feature-extraction", "sentence_embedding", "last_hidden_state"
POOLING = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FIRST, LATER = ("Transformer", "StaticEmbedding"), ("Pooling", "Dense", "Normalize")
UNKNOWN_SETTINGS = ("query_length", "document_length", "query_expansion", "processing_kwargs")
"""Of a transformer module, what changes its vectors and is not done here."""
WEIGHTS, SETTINGS_ENDINGS = ".safetensors", (".json", ".txt", ".model")
"""A folder that is named so would count as a file that is not there."""
SETTINGS = "sentence_*_config.json"
"""sentence_bert_config.json; older versions named the file after the architecture."""


def transformer_folder(folder: Path) -> Path:
    """Where the first module lies: the folder itself where it is a plain transformer."""
    modules = listed_modules(folder)
    return modules[0][1] if modules else folder


def listed_modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, the transformer first; nothing for a plain transformer.

    Raises `UserError` for modules that are no part of sentence-transformers, for those that distilbench does not run,
    and for those outside of the folder.
    """
    path = folder / "modules.json"
    try:
        modules = [(str(entry["type"]), folder / entry["path"]) for entry in read_json(path, default=[])]
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is no list of modules with type and path; save the model anew") from None
    for number, (kind, place) in enumerate(modules):
        # What lies elsewhere would be no part of the hashes that identify the model.
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} names {place}, which is outside of the folder; save the model anew")
        if not kind.startswith(PACKAGE) or _short(kind) not in (LATER if number else FIRST):
            what = kind.removeprefix(PACKAGE).removeprefix("models.")
            raise UserError(f"{path} has a {what} module, which distilbench cannot run; choose another model")
    kinds = [_short(kind) for kind, _ in modules]
    if kinds and [number for number, kind in enumerate(kinds) if kind == "Pooling"] != [1] * (kinds[0] == FIRST[0]):
        raise UserError(f"{path} does not pool once, right behind the transformer; choose another model")
    return [(_short(kind), place) for kind, place in modules]


def _short(kind: str) -> str:
    return kind.rsplit(".", 1)[-1]


def is_static(folder: Path) -> bool:
    return [kind for kind, _ in listed_modules(folder)][:1] == ["StaticEmbedding"]


def check_modules(folder: Path) -> Path | None:
    """The transformer's folder, None for a model that has none. Raises `UserError` for what must not be opened."""
    try:
        return _check_modules(folder)
    # A setting of another type than sentence-transformers writes.
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(f"the settings in {folder} are not readable ({error}); save the model anew") from None


def _check_modules(folder: Path) -> Path | None:
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise UserError(f"{folder}/config_sentence_transformers.json has prompts that are no text; mend it")
    for kind, place in listed_modules(folder)[1:]:
        if kind == "Dense":
            _check_dense(place)
        if kind == "Pooling":
            _check_pooling(place / "config.json", prompts)
    place = transformer_folder(folder)
    if is_static(folder):
        _check_weights(place)
        return None
    _check_transformer(place)
    return place


def _check_pooling(path: Path, prompts: dict[str, str]) -> None:
    config = read_json(path)
    stated = config.get("pooling_mode", [])
    modes = [stated] if isinstance(stated, str) else list(stated)
    old = [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    modes += [mode if mode in POOLING else mode.removesuffix("_token").removesuffix("_tokens") for mode in old]
    if unknown := [str(mode) for mode in modes if mode not in POOLING]:
        raise UserError(f"{path} asks for {unknown[0]} pooling; distilbench knows {', '.join(POOLING)}")
    if not config.get("include_prompt", True) and any(prompts.values()):
        raise UserError(
            f"{path} leaves the prompt out of the pooling, which distilbench cannot do; choose another model"
        )


def _check_dense(place: Path) -> None:
    check_files(place)
    if not any(place.glob("*.safetensors")):
        raise UserError(f"{place} has no .safetensors weights; save the model with save_pretrained and try again")
    config = read_json(place / "config.json")
    activation = str(config.get("activation_function", f"{ACTIVATIONS}linear.Identity"))
    if not activation.startswith(ACTIVATIONS):
        raise UserError(
            f"{place}/config.json has the activation {activation}, which is none of torch's; choose another model"
        )
    odd = config.get("use_residual") or config.get("module_input_name", VECTOR) != VECTOR
    if odd or config.get("module_output_name", VECTOR) not in (VECTOR, None):
        raise UserError(f"{place} is no plain Dense module, and distilbench runs no other; choose another model")


def _check_transformer(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is not a model folder; give one saved by save_pretrained")
    # Read for its errors: they name the file, where those of transformers do not always.
    read_json(folder / "config.json")
    if "auto_map" in read_json(folder / "tokenizer_config.json"):
        raise UserError(f"{folder}/tokenizer_config.json {CODE_OF_ITS_OWN}")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is an adapter; merge it into its model (merge_and_unload) and save that")
    _check_weights(folder)
    check_sizes(folder)
    for path in folder.glob(SETTINGS):
        settings = read_json(path)
        modes = settings.get("modality_config") or {}
        odd = [name for name in UNKNOWN_SETTINGS if settings.get(name)]
        odd += ["transformer_task"] * (settings.get("transformer_task", TASK) != TASK)
        odd += ["modality_config"] * bool(modes and modes.get("text", {}).get("method_output_name") != STATES)
        if odd:
            raise UserError(f"{path} sets {odd[0]}, which distilbench does not do; choose another model")


def check_files(folder: Path) -> None:
    """Raise `UserError` for a pipe or device in a model folder, which may have no end, and for links to nothing."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        try:
            if path.suffix in (WEIGHTS, *SETTINGS_ENDINGS) or not path.is_dir():
                check_ordinary(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); save the model anew") from None


def _check_weights(folder: Path) -> None:
    check_files(folder)
    if not any(folder.glob("*.safetensors")):
        pickles = [f" ({path.name} is a pickle, which distilbench never opens)" for path in folder.glob("*.bin")]
        raise UserError(
            f"{folder} has no .safetensors weights{''.join(pickles[:1])}; save the model with save_pretrained and try "
            "again"
        )
    for index in folder.glob("*.safetensors.index.json"):
        names = read_json(index).get("weight_map", {})
        if not isinstance(names, dict):
            raise UserError(f"{index} holds no mapping of weights to files; save the model anew")
        for name in sorted({str(name) for name in names.values()}):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UserError(f"{index} names {name}, which is no .safetensors file beside it; save the model anew")
            if not (folder / name).is_file():
                raise UserError(f"{index} names {name}, which is not there; save the model anew")


def read_json(path: Path, default: Any = None) -> Any:
    """A file of a model folder; `default` where there is none. Raises `UserError` for what is not of that type."""
    expected = {} if default is None else default
    try:
        if not is_there(path):
            return expected
        check_size(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); save the model anew") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}; save the model anew") from None
    if not isinstance(value, type(expected)):
        raise UserError(f"{path} holds no {'list' if isinstance(expected, list) else 'mapping'}; save the model anew")
    return value
