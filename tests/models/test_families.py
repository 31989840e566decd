"""Every family of transformers, with small random weights: vectors, cuts, exports and FLOPs, against libraries."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import NARROWED, build_student
from distilbench.models.embed import embed
from distilbench.models.encoder import Encoder, layer_stack
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.study.sections.models import StudentSpec
from tests.models.families import FAMILIES, LAYERS, make_family

TEXTS = ["the dog", "The Old House sees a CAT", "a bird sings under the tree " * 12, "the red stone falls"]
ONE_OF_EACH_KIND = ("bert", "electra", "albert", "modernbert", "t5", "qwen3", "gemma3")
"""Plain, of a factorised table, of shared layers, of kinds of layers, of relative positions, a decoder, both."""
FIRST_ONLY = ("modernbert",)
"""Whose first layer is unlike the others."""
families = pytest.mark.parametrize(
    "name", [name if name in ONE_OF_EACH_KIND else pytest.param(name, marks=pytest.mark.thorough) for name in FAMILIES]
)
every_family = pytest.mark.parametrize("name", FAMILIES)
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    known: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in known:
            prompts = {"query": "who sees ", "document": ""}
            known[name] = make_family(name, tmp_path_factory.mktemp(name), prompts=prompts)
        return known[name]

    return make


def close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Equal to 1e-5; of vectors larger than one, relative to the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, float(np.abs(theirs).max())))


@every_family
def test_vectors_are_those_of_sentence_transformers(folder_of: Folder, name: str) -> None:
    folder = folder_of(name)
    loaded, model, tokenizer = (
        SentenceTransformer(str(folder), device="cpu"),
        load_encoder(folder),
        load_tokenizer(folder),
    )
    theirs = loaded.encode(TEXTS)
    close(embed(model, tokenizer, TEXTS), theirs)
    # One by one, nothing is padded.
    close(np.concatenate([embed(model, tokenizer, [text]) for text in TEXTS]), theirs)
    close(embed(model, tokenizer, TEXTS, model.prompts["query"]), loaded.encode_query(TEXTS))
    assert not np.allclose(theirs[0], theirs[3], atol=1e-2)


@every_family
def test_flops_are_those_that_torch_counts(folder_of: Folder, name: str) -> None:
    model = load_encoder(folder_of(name))
    shape = load_encoder(folder_of(name), weights=False)
    model.backbone.set_attn_implementation("eager")
    for batch, tokens in ((1, 24), (3, 40), (2, 11)):
        ids = torch.ones(batch, tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert model.forward_flops(batch, tokens) == pytest.approx(counter.get_total_flops(), rel=0.01)
        assert shape.forward_flops(batch, tokens) == model.forward_flops(batch, tokens)


@every_family
def test_attention_is_the_architectures_own_or_refused(folder_of: Folder, name: str) -> None:
    model = load_encoder(folder_of(name))
    ids = torch.arange(7, 19).view(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    if not model.can_give_maps:
        with pytest.raises(UserError, match="cannot give its attention maps"):
            model.use_attention_maps(True)
        return
    with torch.no_grad():
        own = model(ids, mask).final
        model.use_attention_maps(True)
        ours = model(ids, mask, attention=(1, LAYERS), qkv=(LAYERS,))
    # MobileBERT has no norm that would keep rounding small.
    close(ours.final, own, 1e-4 if name == "mobilebert" else 1e-5)
    model.backbone.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model.backbone(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    real = mask[:, None, :, None] == 1
    for layer, maps in zip((1, LAYERS), ours.attention, strict=True):
        close(maps * real, eager[layer - 1] * real)


def pruned(model: Encoder, kept: tuple[int, ...]) -> Any:
    """The transformer without some of its blocks, each of the others as it is; nothing is built anew."""
    backbone = copy.deepcopy(model.backbone)
    name, blocks = layer_stack(backbone)
    if len(blocks) == LAYERS:
        *path, last = name.split(".")
        parent = backbone.get_submodule(".".join(path))
        left: Any = nn.ModuleList(blocks[layer - 1] for layer in kept)
        if "T5" in type(backbone).__name__:
            # The positions of all blocks are computed in the first.
            left[0].layer[0].SelfAttention = with_positions(left[0].layer[0].SelfAttention, blocks[0])
        setattr(parent, last, left)
    kinds = getattr(backbone.config, "layer_types", None)
    backbone.config.num_hidden_layers = len(kept)
    if kinds is not None:
        backbone.config.layer_types = [kinds[layer - 1] for layer in kept]
    return backbone


def with_positions(attention: Any, first: Any) -> Any:
    attention.has_relative_attention_bias = True
    attention.relative_attention_bias = first.layer[0].SelfAttention.relative_attention_bias
    return attention


@families
@pytest.mark.parametrize("layers", [2, [1, 3], [2, 4], [1, 2, 4]], ids=str)
def test_a_cut_is_the_model_without_the_other_layers(
    folder_of: Folder, name: str, layers: int | list[int], tmp_path: Path
) -> None:
    folder = folder_of(name)
    teacher, tokenizer = load_encoder(folder), load_tokenizer(folder)
    spec = StudentSpec(layers=layers, pooling="mean")
    if name in FIRST_ONLY and layers in (2, [2, 4]):
        with pytest.raises(UserError, match=r"name other layers in student\.layers, such as \[1, 4\]"):
            build_student(teacher, spec, 1)
        return
    student = build_student(teacher, spec, 1).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    kept = tuple(layers) if isinstance(layers, list) else (2, 4)
    with torch.no_grad():
        expected = pruned(teacher, kept)(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        found = student.backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    real = mask.unsqueeze(-1)
    assert len(found.hidden_states) == len(expected.hidden_states) == len(kept) + 1
    for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        close(ours * real, theirs * real)
    export(student, tokenizer, tmp_path / "student", "# card\n")
    close(SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(TEXTS), embed(student, tokenizer, TEXTS))


def explained(table_VW: torch.Tensor, by_VH: torch.Tensor) -> float:
    """Share of the variance of some token vectors that a linear map of others explains."""
    table_VW, by_VH = (values.detach().double() - values.detach().double().mean(0) for values in (table_VW, by_VH))
    fitted = by_VH @ torch.linalg.lstsq(by_VH, table_VW).solution
    return float(1 - (table_VW - fitted).square().sum() / table_VW.square().sum())


@families
def test_a_narrow_student_has_the_teachers_token_vectors(folder_of: Folder, name: str, tmp_path: Path) -> None:
    folder = folder_of(name)
    teacher, tokenizer = load_encoder(folder), load_tokenizer(folder)
    spec = StudentSpec(layers=2, width=16)
    if teacher.backbone.config.model_type not in NARROWED:
        with pytest.raises(UserError, match=r"student\.width cannot be set for a model of type"):
            build_student(teacher, spec, 1)
        return
    student = build_student(teacher, spec, 1).eval()
    assert student.dims.width == 16
    tables = (model.backbone.get_input_embeddings().weight for model in (student, teacher))
    assert explained(*tables) > 0.999
    export(student, tokenizer, tmp_path / "student", "# card\n")
    close(SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(TEXTS), embed(student, tokenizer, TEXTS))


@families
def test_dropout_is_that_which_is_asked_for(folder_of: Folder, name: str) -> None:
    student = build_student(load_encoder(folder_of(name)), StudentSpec(layers=[1, 2], dropout=0.3), 1)
    config = student.backbone.config
    keys = [key for key, value in vars(config).items() if "drop" in key and value == 0.3]
    assert keys
    assert {module.p for module in student.modules() if isinstance(module, nn.Dropout)} <= {0.0, 0.3}
    torch.manual_seed(0)
    ids = torch.arange(7, 19).view(2, 6)
    first, second = (student.train()(ids, torch.ones_like(ids)).final for _ in range(2))
    assert not torch.allclose(first, second)


@every_family
def test_a_student_trains_in_bf16(folder_of: Folder, name: str) -> None:
    student = build_student(load_encoder(folder_of(name)), StudentSpec(layers=[1, 2], dropout=0.0), 1).train()
    ids = torch.arange(7, 19).view(2, 6)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    full = student(ids, mask).final
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = student(ids, mask).final
    half.sum().backward()
    # Weights this wide make rounding large.
    assert float(torch.cosine_similarity(full, half).detach().min()) > 0.98
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    assert any(p.grad is not None for p in student.parameters())
