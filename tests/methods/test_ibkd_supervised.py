"""The second stage of information-bottleneck distillation: its value by hand, gradients, diagnostics, degenerate input.

What it shares with supervised SimCSE is tested beside the other methods that learn from labelled texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import hard_negative_info_nce, without_diagonal
from distilbench_methods.ibkd_supervised import SupervisedIBKD
from distilbench_methods.kernels import hsic, kernel_matrix

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def as_it_is(dtype: torch.dtype) -> nn.ModuleDict:
    """A projection from 2 to 2 dimensions that changes nothing."""
    linear = nn.Linear(2, 2).to(dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        linear.bias.zero_()
    return nn.ModuleDict({"projection": linear})


def opposites(dtype: torch.dtype) -> Signals:
    """Two anchors, the unit vectors; each fits itself, and its opposite is its hard negative."""
    eye = torch.eye(2, dtype=dtype)
    return Signals(
        index_B=torch.arange(2),
        mask_BT=torch.ones(2, 1),
        student_BS=eye.clone(),
        candidates_BKS=torch.stack([eye, -eye], dim=1),
        student_layers_BLS=eye[:, None].clone(),
        candidate_layers_BKLS=torch.stack([eye, -eye], dim=1)[:, :, None],
    )


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, 0.6265233750), (2.0, 0.6963567488)])
def test_contrast_by_hand(alpha: float, expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    method = SupervisedIBKD(temperature=1.0, hard_negative_alpha=alpha, projected_width=2)
    terms = method.loss(opposites(dtype), as_it_is(dtype), 0.0)
    assert terms["contrastive"].dtype == dtype
    assert float(terms["contrastive"].detach()) == pytest.approx(expected, abs=tolerance)


def test_penalty_of_six_texts_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    # Squared distances: anchors and fitting texts coincide, a text is 4 from its opposite and 2 from the other two.
    opposite, other = math.exp(-0.4), math.exp(-0.2)
    rows = [[1.0 if i == j else opposite if {i, j} in ({0, 2}, {1, 3}) else other for j in range(4)] for i in range(4)]
    order = [0, 1, 0, 2, 1, 3]  # the texts as corners of the square: anchors, then each row's pair
    k = torch.tensor([[rows[i][j] for j in order] for i in order], dtype=torch.float64)
    centring = torch.eye(6, dtype=torch.float64) - 1 / 6
    expected = float((k @ centring @ k @ centring).trace()) / 25
    terms = SupervisedIBKD(projected_width=2).loss(opposites(dtype), as_it_is(dtype), 0.0)
    assert float(terms["hsic"].detach()) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("hard_negatives", [True, False])
def test_whole_loss_as_written(hard_negatives: bool, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SupervisedIBKD(hard_negatives=hard_negatives, hsic_weight=0.7, temperature=0.3, hard_negative_alpha=3.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    size, texts = 5, [signals.student_BS, *signals.candidates_BKS.unbind(1)]
    below = [signals.student_layers_BLS[:, 0], *signals.candidate_layers_BKLS[:, :, 0].unbind(1)]
    anchor, *others = (aux["projection"](text) for text in texts)
    score = [torch.cosine_similarity(anchor[:, None], other[None], dim=-1).div(0.3).exp() for other in others]
    if hard_negatives:
        score[1] = score[1] * (1 + 2 * torch.eye(size, dtype=torch.float64))
    expected = -(score[0].diagonal() / torch.stack(score).sum((0, 2))).log().mean()
    terms = method.loss(signals, aux, 0.0)
    torch.testing.assert_close(terms["contrastive"], expected)
    assert len(torch.cat(texts)) == size * (3 if hard_negatives else 2)
    torch.testing.assert_close(terms["hsic"], 0.7 * hsic(torch.cat(below), torch.cat(texts), 0.1))


def test_defaults_are_those_of_the_script(dims: Callable[..., Dims]) -> None:
    method = SupervisedIBKD()
    shapes = [tuple(parameter.shape) for parameter in method.build_aux(dims(student_final=7)).parameters()]
    assert shapes == [(128, 7), (128,)]
    assert method.exported_head(method.build_aux(dims())) is None
    assert (method.hsic_weight, method.temperature, method.gamma) == (1.0, 0.05, 0.1)
    # The weight of the own hard negative is 0, so it counts like all others.
    assert math.log(method.hard_negative_alpha) == 0


def test_asks_for_the_layer_below_the_last_and_no_teacher(dims: Callable[..., Dims]) -> None:
    for layers in (1, 2, 6):
        needs = SupervisedIBKD().needs(dims(student=(6, layers, 2)))
        assert needs.student_layers == (layers - 1,)
        assert (needs.candidates, needs.batch_kind) == (2, "triple")
        assert not any(getattr(needs, item.name) for item in fields(needs) if item.name.startswith("teacher"))
    assert SupervisedIBKD(hard_negatives=False).needs(dims()).batch_kind == "pair"
    assert SupervisedIBKD(hsic_weight=0).needs(dims()).student_layers == ()


def test_negatives_are_counted() -> None:
    assert SupervisedIBKD().negatives_per_step(8) == 15
    assert SupervisedIBKD(hard_negatives=False).negatives_per_step(8) == 7


def test_finite_differences_of_the_whole_loss() -> None:
    def total(text: Tensor, below: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        anchor, positive, negative = nn.functional.linear(text, weight, bias).unbind(1)
        contrast = hard_negative_info_nce(anchor, positive, negative, 0.5, 2.0)
        return contrast + hsic(below.flatten(0, 1), text.flatten(0, 1), 0.1)

    inputs = (draw(3, 3, 4, grad=True), draw(3, 3, 4, seed=1, grad=True), draw(2, 4, seed=2, grad=True))
    assert torch.autograd.gradcheck(total, (*inputs, draw(2, seed=3, grad=True)), rtol=1e-5, atol=1e-8)


def test_the_penalty_reaches_all_texts_on_both_sides(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SupervisedIBKD()
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    leaves = (
        signals.student_BS,
        signals.candidates_BKS,
        signals.student_layers_BLS,
        signals.candidate_layers_BKLS,
    )
    for gradient in torch.autograd.grad(method.loss(signals, aux, 0.0)["hsic"], leaves):
        assert gradient.flatten(0, -2).any(dim=-1).all()


def test_which_text_of_the_row_is_which(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SupervisedIBKD(hard_negative_alpha=1e-300)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    texts = (signals.student_BS, *signals.candidates_BKS.unbind(1))
    anchor, positive, negative = (aux["projection"](text) for text in texts)
    expected = hard_negative_info_nce(anchor, positive, negative, 0.05, 1e-300)
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["contrastive"], expected)
    swapped = Signals(**{**signals.__dict__, "candidates_BKS": signals.candidates_BKS.flip(1)})
    assert not torch.isclose(method.loss(swapped, aux, 0.0)["contrastive"], expected)


def test_diagnostics(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for hard_negatives in (True, False):
        method = SupervisedIBKD(hsic_weight=0.5, gamma=0.2, kernel="imq", hard_negatives=hard_negatives)
        signals, aux = fake(method, dims()), method.build_aux(dims()).double()
        with torch.no_grad():
            found = method.diagnostics(signals, aux)
        terms = method.loss(signals, aux, 0.0)
        leaves = (signals.student_BS, signals.candidates_BKS)
        lengths = [
            torch.cat([part.flatten() for part in torch.autograd.grad(terms[name], leaves)]).norm()
            for name in ("hsic", "contrastive")
        ]
        assert float(found["gradient_ratio"]) == pytest.approx(float(lengths[0] / lengths[1]), rel=1e-6)
        torch.testing.assert_close(0.5 * found["hsic"], terms["hsic"].detach())
        shipped = torch.cat([signals.student_BS, signals.candidates_BKS.flatten(0, 1)]).detach()
        expected = without_diagonal(kernel_matrix(shipped, 0.2, "imq")).mean()
        torch.testing.assert_close(found["output_kernel"], expected)
    assert SupervisedIBKD(hsic_weight=0).diagnostics(signals, aux) == {}


def test_a_batch_of_one_has_three_texts(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for method, contrast in ((SupervisedIBKD(), 1), (SupervisedIBKD(hard_negatives=False), 0)):
        signals, aux = fake(method, dims(), batch_size=1), method.build_aux(dims()).double()
        terms = method.loss(signals, aux, 0.0)
        assert all(torch.isfinite(value) for value in terms.values())
        # One text that fits is found without fail, unless a hard negative competes.
        assert bool(terms["contrastive"]) == contrast


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": "mean"},
        {"gamma": -1.0},
        {"temperature": 0.0},
        {"hsic_weight": -1.0},
        {"hard_negative_alpha": 0.0},
        {"projected_width": 0},
        {"kernel": "sigmoid"},
    ],
)
def test_invalid_values_are_refused(settings: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SupervisedIBKD(**settings)  # type: ignore[arg-type]
