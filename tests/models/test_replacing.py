"""A student's own layers stand in the place of torch's, and stay in bf16 under autocast."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from distilbench.models.cutting import build_student
from distilbench.models.model_folder import load_encoder
from distilbench.models.parts.dropout import Dropout
from distilbench.models.parts.norm import LayerNorm
from distilbench.models.parts.replacing import replace_layers
from distilbench.study.sections.models import StudentSpec


def test_every_dropout_below_a_module_is_replaced() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.3), nn.ReLU()), nn.Dropout(0.1))
    replace_layers(module)
    found = [child for child in module.modules() if isinstance(child, nn.Dropout)]
    assert [type(child) for child in found] == [Dropout, Dropout]
    assert [child.p for child in found] == [0.3, 0.1]


def test_every_norm_below_a_module_is_replaced_and_keeps_its_parameters() -> None:
    module = nn.Sequential(nn.LayerNorm(4, eps=1e-3), nn.Sequential(nn.LayerNorm((2, 4), bias=False)))
    module.append(nn.LayerNorm(4, elementwise_affine=False))
    before, names = dict(module.named_parameters()), list(module.state_dict())
    plain = copy.deepcopy(module)
    replace_layers(module)
    norms = [child for child in module.modules() if isinstance(child, nn.LayerNorm)]
    assert [type(norm) for norm in norms] == [LayerNorm] * 3
    assert list(module.state_dict()) == names
    assert all(value is before[name] for name, value in module.named_parameters())
    x = torch.randn(3, 2, 4)
    assert torch.equal(module(x), plain(x))


def test_under_autocast_a_norm_gives_what_is_multiplied_in() -> None:
    norm, x = LayerNorm.with_weights_of(nn.LayerNorm(64)), torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow, again = norm(x), norm(x.bfloat16())
    assert narrow.dtype == again.dtype == torch.bfloat16
    assert torch.equal(narrow, norm(x).bfloat16())
    # Statistics and weights are in fp32 whatever the input.
    torch.testing.assert_close(again, norm(x.bfloat16().float()).bfloat16(), rtol=2**-7, atol=2**-9)


def test_a_students_states_stay_in_bf16_between_blocks_and_leave_in_fp32(teacher_folder: Path) -> None:
    student = build_student(load_encoder(teacher_folder), StudentSpec(layers=2), 0).train()
    student.use_attention_maps(True)
    ids_BT = torch.arange(12).view(2, 6)
    seen: list[torch.dtype] = []
    blocks = [child for child in student.backbone.modules() if isinstance(child, LayerNorm)]
    handles = [norm.register_forward_hook(lambda _, inputs, out: seen.append(out.dtype)) for norm in blocks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = student(ids_BT, torch.ones_like(ids_BT), layers=(1, 2), attention=(1,), hidden=(0, 2))
    for handle in handles:
        handle.remove()
    assert seen
    assert set(seen) == {torch.bfloat16}
    assert out.layers is not None
    assert out.attention is not None
    assert out.hidden is not None
    given = [out.final, out.layers, *out.attention, *out.hidden]
    assert {tensor.dtype for tensor in given} == {torch.float32}


def test_a_norm_without_weights_gives_shapes() -> None:
    norm = LayerNorm.with_weights_of(nn.LayerNorm(8, device="meta"))
    assert norm(torch.zeros(2, 8, device="meta")).is_meta
