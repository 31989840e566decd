"""Pooling, attention maps, FLOPs, and loading of model folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import build_student
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench.models.parts.pooling import pool
from distilbench.study.sections.models import StudentSpec


@pytest.fixture
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder)


@pytest.fixture
def batch(teacher_folder: Path) -> tuple[Tensor, Tensor]:
    texts = ["the dog sees a cat", "water", "a small bird sings under the old tree"]
    tokens = load_tokenizer(teacher_folder)(texts, padding=True, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"]


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0, 4.0]]
    assert pool(hidden, mask, "cls").tolist() == [[1.0, 2.0]]


def test_more_padding_changes_nothing(teacher: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    ids, mask = batch
    wider = [torch.nn.functional.pad(tensor, (0, 5)) for tensor in batch]
    out, padded = teacher(ids, mask, layers=(0, 2, 4)), teacher(*wider, layers=(0, 2, 4))
    torch.testing.assert_close(out.final, padded.final)
    torch.testing.assert_close(out.layers, padded.layers)


def test_attention_maps_are_probabilities_before_dropout(teacher: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    ids, mask = batch
    fused = teacher(ids, mask).final
    teacher.use_attention_maps(True)
    teacher.train()
    maps = teacher(ids, mask, attention=(1, 4)).attention
    assert maps is not None
    assert maps[0].shape == (3, 4, ids.shape[1], ids.shape[1])
    torch.testing.assert_close(maps[0].sum(-1), torch.ones_like(maps[0][..., 0]))
    assert (maps[1].masked_select(mask[:, None, None] == 0) == 0).all()
    torch.testing.assert_close(teacher.eval()(ids, mask, attention=(1,)).final, fused)


def test_first_layer_map_is_that_of_plain_attention(teacher: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    ids, mask = batch
    teacher.use_attention_maps(True)
    ours = teacher(ids, mask, attention=(3,)).attention
    teacher.backbone.set_attn_implementation("eager")
    eager = teacher.backbone(input_ids=ids, attention_mask=mask, output_attentions=True).attentions[2]
    assert ours is not None
    torch.testing.assert_close(ours[0], eager)


def test_forward_flops_are_those_that_torch_counts(teacher: Encoder, batch: tuple[Tensor, Tensor]) -> None:
    ids, mask = batch
    teacher.train()
    with FlopCounterMode(display=False) as counter:
        teacher(ids, mask).final.sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * teacher.forward_flops(*ids.shape), rel=0.01)


def test_sentence_transformers_gives_the_same_vectors(teacher: Encoder, teacher_folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["the dog sees a cat", "water", "a small bird sings under the old tree"]
    theirs = sentence_transformers.SentenceTransformer(str(teacher_folder), device="cpu").encode(texts)
    tokens = load_tokenizer(teacher_folder)(texts, padding=True, return_tensors="pt")
    ours = teacher(tokens["input_ids"], tokens["attention_mask"]).final
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-6, rtol=0)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_folders_that_cannot_be_loaded(teacher_folder: Path, tmp_path: Path) -> None:
    no_weights = copy_of(teacher_folder, tmp_path / "a")
    (no_weights / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \.safetensors weights"):
        load_encoder(no_weights)
    no_config = copy_of(teacher_folder, tmp_path / "b")
    (no_config / "config.json").unlink()
    with pytest.raises(UserError, match="not a model folder"):
        load_encoder(no_config)
    broken = copy_of(teacher_folder, tmp_path / "c")
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_encoder(broken)
    odd = copy_of(teacher_folder, tmp_path / "d")
    (odd / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_odd": True}))
    with pytest.raises(UserError, match="odd pooling; distilbench knows mean, cls, max"):
        load_encoder(odd)
    partial = copy_of(teacher_folder, tmp_path / "f")
    weights = load_file(partial / "model.safetensors")
    save_file({key: value for key, value in weights.items() if ".1." not in key}, partial / "model.safetensors")
    with pytest.raises(UserError, match="lacks 16 of the model's weights"):
        load_encoder(partial)
    prompted = copy_of(teacher_folder, tmp_path / "g")
    (prompted / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": "absent"}))
    with pytest.raises(UserError, match="Default prompt name 'absent' not found"):
        load_encoder(prompted)
    no_tokenizer = tmp_path / "e"
    no_tokenizer.mkdir()
    with pytest.raises(UserError, match="not a model folder"):
        load_tokenizer(no_tokenizer)


def small(kind: str) -> Encoder:
    """A random encoder of another architecture."""
    import transformers as hf

    sizes = {"vocab_size": 50, "max_position_embeddings": 40}
    backbone = {
        "bert": lambda: hf.BertModel(
            hf.BertConfig(**sizes, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        ),
        "roberta": lambda: hf.RobertaModel(
            hf.RobertaConfig(**sizes, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        ),
        "distilbert": lambda: hf.DistilBertModel(
            hf.DistilBertConfig(**sizes, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
        ),
        "mpnet": lambda: hf.MPNetModel(
            hf.MPNetConfig(**sizes, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        ),
    }[kind]()
    return Encoder(backbone, pooling="mean", max_length=32).eval()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet"])
def test_other_architectures(kind: str) -> None:
    model = small(kind)
    ids, mask = torch.arange(5, 11).repeat(2, 1), torch.ones(2, 6, dtype=torch.long)
    out = model(ids, mask, layers=(0, 2))
    assert out.layers is not None
    assert out.layers.shape == (2, 2, 16)
    assert model.max_positions == (38 if kind in ("roberta", "mpnet") else 40)
    with FlopCounterMode(display=False) as counter:
        model.train()(ids, mask).final.sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * model.forward_flops(2, 6), rel=0.01)
    student = build_student(model, StudentSpec(layers=1, width=8), 1)
    assert student.eval()(ids, mask).final.shape == (2, 8)
    if model.can_give_maps:
        student.use_attention_maps(True)
        assert student(ids, mask, attention=(1,)).attention is not None
    else:
        with pytest.raises(UserError, match="cannot give its attention maps"):
            student.use_attention_maps(True)
