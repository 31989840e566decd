"""How a student is cut from a larger model: which layers it keeps, and what it takes of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distilbench.core.errors import UserError
from distilbench.core.seeds import seed_for, seeded
from distilbench.models.encoder import Encoder, drop_pooler, feed_forward_key, layer_stack
from distilbench.models.parts.pooling import Pooling
from distilbench.models.parts.replacing import replace_layers
from distilbench.study.sections.models import StudentSpec
from distilbench_methods.base import evenly_spaced

NARROWED = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "albert", "deberta-v2")
"""Types of models whose width can be set: all of their shapes follow from it."""
NOT_OF_LAYERS = ("classifier", "summary", "layerdrop", "drop_path")
"""Kinds of dropout that no layer of an encoder has."""


def build_student(teacher: Encoder, spec: StudentSpec, seed: int, directions: Tensor | None = None) -> Encoder:
    """A student cut from the teacher: equal for equal teacher, spec and seed, whatever method will train it.

    With the teacher's width, the kept layers are copies. With a smaller one, the embedding tables are projected on
    the leading right singular vectors of the teacher's word embeddings (or copied, where the architecture projects
    them itself) and everything else starts at random. `directions` are those vectors, where `directions_for` gave them
    before. Of a teacher without weights, on the device `meta`, the student has none either. Raises `UserError` for a
    cut that would not be the teacher's.
    """
    return _encoder(teacher, _cut(teacher, spec, seed, directions), pooling=spec.pooling or "mean", head=None)


def cut_model(model: Encoder, spec: StudentSpec, seed: int) -> Encoder:
    """A student that starts as another model, with all of its layers or some, and its pooling and head."""
    if spec.layers is None and spec.dropout is None:
        replace_layers(model.backbone)
        backbone = model.backbone
    else:
        every = spec.model_copy(update={"layers": spec.layers or model.dims.layers})
        backbone = _cut(model, every, seed)
    student = _encoder(model, backbone, pooling=spec.pooling or model.pooling, head=model.head)
    student.similarity = model.similarity
    return student


def _encoder(source: Encoder, backbone: Any, *, pooling: Pooling, head: nn.Module | None) -> Encoder:
    return Encoder(
        backbone,
        pooling=pooling,
        head=head,
        max_length=source.max_length,
        prompts=source.prompts,
        default_prompt_name=source.default_prompt_name,
    )


def _cut(source: Encoder, spec: StudentSpec, seed: int, directions: Tensor | None = None) -> Any:
    """A transformer of some of another's layers."""
    kept = kept_layers(spec, source.dims.layers)
    config = _config_of_layers(source.backbone, kept)
    if spec.dropout is not None:
        for key in _dropout_keys(config):
            setattr(config, key, spec.dropout)
    if narrow := _is_narrow(source, spec):
        _set_width(config, int(spec.width or 0))
    place = source.device if source.device.type == "meta" else torch.device("cpu")
    with seeded(seed_for(seed, "student")), place:
        backbone: Any = type(source.backbone)._from_config(config, dtype=torch.float32)
    drop_pooler(backbone)
    replace_layers(backbone)
    if narrow:
        _project_embeddings(
            source.backbone, backbone, directions_for(source, spec) if directions is None else directions
        )
    else:
        _copy_layers(source.backbone, backbone, kept)
    return backbone


def _is_narrow(source: Encoder, spec: StudentSpec) -> bool:
    return spec.width is not None and spec.width != source.dims.width


def kept_layers(spec: StudentSpec, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layers (from 1) that the student starts from."""
    kept = tuple(spec.layers) if isinstance(spec.layers, list) else None
    asked = max(kept) if kept else spec.layers if isinstance(spec.layers, int) else 0
    if asked > teacher_layers:
        raise UserError(f"student.layers asks for {asked}, but the teacher has {teacher_layers} layers; ask for fewer")
    if kept is not None and list(kept) != sorted(set(kept)):
        raise UserError(f"student.layers {list(kept)} must name each layer once, in rising order")
    return kept or evenly_spaced(asked, teacher_layers)


def _config_of_layers(backbone: Any, kept: tuple[int, ...]) -> Any:
    """The config of a transformer of these layers, each of which keeps its own entry in lists by layer."""
    config = copy.deepcopy(backbone.config)
    count = config.num_hidden_layers
    for key, value in vars(config).items():
        # Names of special tokens and the like are lists too.
        if key.endswith(("layers", "layer_types")) and isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[layer - 1] for layer in kept])
    config.num_hidden_layers = len(kept)
    return config


def _dropout_keys(config: Any) -> Iterator[str]:
    for key, value in vars(config).items():
        ours = "drop" in key and not any(other in key for other in NOT_OF_LAYERS)
        if ours and isinstance(value, float | int) and not isinstance(value, bool):
            yield key


def _set_width(config: Any, width: int) -> None:
    if config.model_type not in NARROWED:
        raise UserError(
            f"student.width cannot be set for a model of type {config.model_type}; leave it out, or give student.model"
        )
    if width > config.hidden_size:
        raise UserError(f"student.width {width} is larger than the teacher's {config.hidden_size}; ask for less")
    if width % config.num_attention_heads:
        raise UserError(
            f"student.width {width} is not a multiple of the {config.num_attention_heads} attention heads; ask for "
            f"{max(width // config.num_attention_heads, 1) * config.num_attention_heads}"
        )
    key = feed_forward_key(config)
    setattr(config, key, getattr(config, key) * width // config.hidden_size)
    config.hidden_size = width


def leading_directions(table_VH: Tensor, count: int) -> Tensor:
    """The `count` leading right singular vectors of an embedding table, [H, count], with a fixed sign.

    Always computed on the CPU, so that students are equal whatever device will train them.
    """
    table_VH = table_VH.detach().cpu()
    _, vectors = torch.linalg.eigh(table_VH.double().T @ table_VH.double())
    leading = vectors.flip(-1)[:, :count]
    largest = leading.gather(0, leading.abs().argmax(dim=0, keepdim=True))
    signed: Tensor = leading * largest.sign()
    return signed.to(table_VH.dtype)


def directions_for(teacher: Encoder, spec: StudentSpec) -> Tensor | None:
    """What the token vectors of a narrower student are projected on, [teacher width, width], equal for all seeds.

    None where the width is the teacher's, or the architecture projects token vectors itself.
    """
    table_VH: Tensor = teacher.backbone.get_input_embeddings().weight
    if not _is_narrow(teacher, spec) or table_VH.shape[1] != teacher.dims.width:
        return None
    if table_VH.is_meta:
        return table_VH.new_empty(teacher.dims.width, int(spec.width or 0))
    return leading_directions(table_VH, int(spec.width or 0))


@torch.no_grad()
def _project_embeddings(teacher: Any, student: Any, directions: Tensor | None) -> None:
    own, source = student.config.hidden_size, teacher.state_dict()
    for name, module in student.named_modules():
        if not isinstance(module, nn.Embedding):
            continue
        values = source[f"{name}.weight"].to(module.weight.device)
        if values.shape == module.weight.shape:
            module.weight.copy_(values)
        elif directions is not None and module.embedding_dim == own:
            module.weight.copy_(values @ directions)
        elif not name.endswith("relative_attention_bias"):
            raise UserError(
                f"student.width cannot be set for this {type(teacher).__name__}: its {name} could not be projected; "
                "leave student.width out"
            )


@torch.no_grad()
def _copy_layers(teacher: Any, student: Any, kept: tuple[int, ...]) -> None:
    """Copy the weights of the kept layers, and of all that is no layer; every one of them must find its place."""
    source, target = teacher.state_dict(), student.state_dict()
    stack, blocks = layer_stack(teacher)
    shared = len(blocks) < teacher.config.num_hidden_layers
    inside = re.compile(rf"^{re.escape(stack)}\.(\d+)\.")
    taken = set()
    for name, tensor in target.items():
        origin = name if shared else inside.sub(lambda match: f"{stack}.{kept[int(match[1])] - 1}.", name)
        # What all layers share may lie in the first one, as the relative positions of T5 do.
        origin = origin if origin in source else name
        if origin not in source or source[origin].shape != tensor.shape:
            raise _unfit(teacher, kept, f"nothing in it can be its {name}")
        tensor.copy_(source[origin])
        taken.add(origin)
    dropped = {layer for layer in range(teacher.config.num_hidden_layers) if layer + 1 not in kept}
    for name in source.keys() - taken:
        match = inside.match(name)
        if match is None or int(match[1]) not in dropped:
            raise _unfit(teacher, kept, f"its {name} has no place there")


def _unfit(teacher: Any, kept: tuple[int, ...], why: str) -> UserError:
    return UserError(
        f"a {type(teacher).__name__} of the layers {list(kept)} cannot be built: {why}; name other layers in "
        f"student.layers, such as {[1, *kept[1:]]}"
    )
