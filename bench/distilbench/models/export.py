"""A trained student as a folder that sentence-transformers and transformers load.

The layout is the classic one (`sentence_transformers.models.*` types), which old and new versions read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from distilbench.core.escape import escape_markdown, visible
from distilbench.core.sealed import write_folder_atomically
from distilbench.models.encoder import Dense, Encoder, Normalize
from distilbench.models.parts.token_table import TokenTable
from distilbench.records.record import dump_json
from distilbench.study.sections.models import PoolingMode

ACTIVATIONS = (nn.Tanh, nn.GELU, nn.ReLU)
NEWLINE = "\n"
POOLING_MODES: dict[PoolingMode, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def export(student: Encoder, tokenizer: Any, folder: Path, card: str) -> None:
    """Write a student with its tokenizer and model card; an existing folder is replaced as a whole."""
    write_folder_atomically(folder, lambda path: _write(student, tokenizer, path, card))


def _write(student: Encoder, tokenizer: Any, folder: Path, card: str) -> None:
    modules = (
        _write_static(student, folder)
        if isinstance(student.backbone, TokenTable)
        else _write_transformer(student, folder)
    )
    tokenizer.save_pretrained(folder)
    for part in _parts(student.head):
        kind = "Normalize" if isinstance(part, Normalize) else "Dense"
        path = f"{len(modules)}_{kind}"
        modules.append((path, kind))
        if isinstance(part, Dense):
            _write_dense(part, folder / path)
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries, indent=2), encoding="utf-8")
    # Classes of tokenizers that build their normaliser anew would drop what the student's folder had added to it.
    lower_case = '"Lowercase"' in json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"])
    dump_json({"max_seq_length": student.max_length, "do_lower_case": lower_case}, folder / "sentence_bert_config.json")
    settings = {
        "prompts": student.prompts,
        "default_prompt_name": student.default_prompt_name,
        "similarity_fn_name": student.similarity,
    }
    dump_json(settings, folder / "config_sentence_transformers.json")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_transformer(student: Encoder, folder: Path) -> list[tuple[str, str]]:
    student.use_attention_maps(False)
    student.backbone.save_pretrained(folder)
    _write_pooling(student, folder / "1_Pooling")
    return [("", "Transformer"), ("1_Pooling", "Pooling")]


def _write_static(student: Encoder, folder: Path) -> list[tuple[str, str]]:
    table_VS = student.backbone.get_input_embeddings().weight.detach()
    save_file({"embedding.weight": table_VS}, folder / "model.safetensors")
    return [("", "StaticEmbedding")]


def _parts(head: nn.Module) -> list[Dense | Normalize]:
    """The modules of a head as sentence-transformers stores them: linear layers with their activations, scaling."""
    if isinstance(head, Dense | Normalize):
        return [head]
    modules = list(head) if isinstance(head, nn.Sequential) else [head]
    parts: list[Dense | Normalize] = []
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, Dense | Normalize):
            parts.append(module)
        elif isinstance(module, nn.Linear):
            parts.append(Dense(module, following if isinstance(following, ACTIVATIONS) else nn.Identity()))
        elif not isinstance(module, (*ACTIVATIONS, nn.Identity)):
            raise TypeError(
                f"a head that ships is made of linear layers and activations, not of {type(module).__name__}"
            )
    return parts


def _write_pooling(student: Encoder, folder: Path) -> None:
    folder.mkdir()
    chosen = (student.pooling,) if isinstance(student.pooling, str) else student.pooling
    modes = {key: mode in chosen for mode, key in POOLING_MODES.items()}
    width = {"word_embedding_dimension": student.dims.width}
    in_order = tuple(mode for mode in POOLING_MODES if mode in chosen) == chosen
    # Of another order than theirs, old versions know nothing.
    dump_json(width | (modes if in_order else {"pooling_mode": chosen}), folder / "config.json")


def _write_dense(dense: Dense, folder: Path) -> None:
    folder.mkdir()
    linear, activation = dense[0], dense[1]
    dump_json(
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
        },
        folder / "config.json",
    )
    save_file({f"linear.{name}": value for name, value in linear.state_dict().items()}, folder / "model.safetensors")


def licence_of(folder: Path) -> str | None:
    """The licence that a model folder's card states in its front matter; None where it states none."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^license:\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return stated[1] if stated else None


def model_card(values: dict[str, Any], licence: str | None = None, origin: str = "the teacher") -> str:
    """A README for the exported folder: front matter, and how the model was made.

    `licence` is that of its `origin`, the model that the student's first weights are from.
    """
    rows = "\n".join(f"| {escape_markdown(key)} | {escape_markdown(str(value))} |" for key, value in values.items())
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags: [sentence-transformers, feature-extraction, knowledge-distillation, distilbench]\n"
        f"{f'license: {json.dumps(visible(licence), ensure_ascii=False)}{NEWLINE}' if licence else ''}---\n\n"
        "# A student distilled with distilbench\n\n"
        "Load it with `SentenceTransformer(path)`; `AutoModel.from_pretrained(path)` gives the transformer alone.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        f"Licence of {escape_markdown(origin)}, from which the student was made: "
        f"{escape_markdown(licence) if licence else 'its card states none'}.\n"
    )
