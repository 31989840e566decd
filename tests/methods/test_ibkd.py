"""Information-bottleneck distillation: values by hand, what HSIC ignores, gradients, bandwidths."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods.base import Dims, Signals, UnsuitableError
from methods.functional import info_nce
from methods.ibkd import IBKD, hsic, kernel_dependence, off_diagonal, rbf_kernel, squared_distances

Precision = tuple[torch.dtype, float]
EXAMPLE = {
    "z": [[1, 0], [0, 1], [1, 1]],
    "x": [[0, 0], [1, 0], [0, 2]],
    "weight": [[1, 0], [0, 1], [1, -1]],
    "bias": [0, 0, 0.5],
}


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def column(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


def example(dtype: torch.dtype) -> tuple[Signals, nn.ModuleDict]:
    """Three sentences, a decoder from 2 to 3 dimensions, and the unit vectors as teacher."""
    decoder = nn.Linear(2, 3).to(dtype)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor(EXAMPLE["weight"]))
        decoder.bias.copy_(torch.tensor(EXAMPLE["bias"]))
    signals = Signals(
        index_B=torch.arange(3),
        mask_BT=torch.ones(3, 1),
        student_BS=torch.tensor(EXAMPLE["z"], dtype=dtype),
        student_layers_BLS=torch.tensor(EXAMPLE["x"], dtype=dtype)[:, None],
        teacher_final_BD=torch.eye(3, dtype=dtype),
    )
    return signals, nn.ModuleDict({"decoder": decoder})


@pytest.mark.parametrize(
    ("x", "z", "gamma", "expected"),
    [
        ((0, 1), (0, 2), 1.0, 0.6205428669),
        ((0, 1, 3), (0, 2, 1), 1.0, 0.2982575444),
        ((0, 1, 3), (0, 2, 1), 0.5, 0.1503346772),
        ((0, 1, 3), (0, 2, 1), 0.1, 0.0103225234),
        ((0, 1, 3), (2, 2, 2), 1.0, 0.0),
        ((0, 100, 200, 300), (0, 100, 200, 300), 1.0, 1 / 3),
    ],
)
def test_hsic_by_hand(
    x: tuple[float, ...], z: tuple[float, ...], gamma: float, expected: float, precision: Precision
) -> None:
    dtype, tolerance = precision
    found = hsic(column(*x, dtype=dtype), column(*z, dtype=dtype), gamma)
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_hsic_gradient_by_hand() -> None:
    x = column(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(hsic(x, column(0, 2), 1.0), x)
    expected = column(-0.7222829883, 0.7222829883)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


def test_hsic_as_a_trace() -> None:
    k, other, size = rbf_kernel(draw(5, 3), 0.3), rbf_kernel(draw(5, 2, seed=1), 0.7), 5
    centring = torch.eye(size, dtype=torch.float64) - 1 / size
    expected = (k @ centring @ other @ centring).trace() / (size - 1) ** 2
    torch.testing.assert_close(kernel_dependence(k, other), expected)
    expanded = (k * other).sum() / size**2 + k.mean() * other.mean() - 2 * (k @ other).mean() / size
    torch.testing.assert_close(kernel_dependence(k, other), expanded * (size / (size - 1)) ** 2)


def test_what_hsic_ignores() -> None:
    x, z = draw(6, 3), draw(6, 2, seed=1)
    expected = hsic(x, z, 0.5)
    rotation = torch.linalg.qr(draw(3, 3, seed=2))[0]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(hsic(z, x, 0.5), expected)
    torch.testing.assert_close(hsic(x + draw(3, seed=4), z - 9, 0.5), expected)
    torch.testing.assert_close(hsic(x @ rotation, z, 0.5), expected)
    torch.testing.assert_close(hsic(x[order], z[order], 0.5), expected)
    torch.testing.assert_close(hsic(3 * x, 3 * z, 0.5 / 9), expected)
    assert not torch.isclose(hsic(x[order], z, 0.5), expected)


def test_hsic_of_independent_draws_falls_with_the_batch_size() -> None:
    for size in (64, 256):
        draws = [hsic(draw(size, 2, seed=seed), draw(size, 2, seed=100 + seed), 0.5) for seed in range(20)]
        # The mean kernel entry of 2-d Gaussians is 1/3 at this bandwidth.
        assert float(torch.stack(draws).mean()) == pytest.approx((2 / 3) ** 2 / size, rel=0.15)
    same = draw(256, 2)
    assert float(hsic(same, same, 0.5)) > 0.04


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_hsic_gradient(gamma: float) -> None:
    assert torch.autograd.gradcheck(lambda x, z: hsic(x, z, gamma), (draw(4, 3, grad=True), draw(4, 2, grad=True)))


def test_hsic_refuses_a_single_sentence() -> None:
    with pytest.raises(ValueError, match="a batch needs two or more, got one"):
        hsic(draw(1, 3), draw(1, 3), 1.0)


def test_distances_survive_a_large_common_mean() -> None:
    x = draw(8, 16)
    exact = torch.cdist(x, x).square().float()
    found = squared_distances((x + 1000).float())
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-2)
    assert (found >= 0).all()


def test_duplicates_are_at_distance_zero_or_above() -> None:
    x = torch.full((6, 32), 0.1) + torch.randn(6, 1, generator=torch.Generator().manual_seed(0)) * 1e-4
    assert (squared_distances(x) >= 0).all()


def test_off_diagonal() -> None:
    assert off_diagonal(torch.arange(9).view(3, 3)).tolist() == [1, 2, 3, 5, 6, 7]


def test_median_bandwidth() -> None:
    x = column(0, 1, 3)  # squared distances 1, 4, 9
    torch.testing.assert_close(rbf_kernel(x, "median"), rbf_kernel(x, 1 / 8))
    z = draw(5, 2)
    torch.testing.assert_close(hsic(1000 * x.expand(3, 2), z[:3], "median"), hsic(x.expand(3, 2), z[:3], "median"))


def test_median_bandwidth_is_a_constant_to_the_gradient() -> None:
    x = draw(5, 3, grad=True)
    fixed = 1 / (2 * float(off_diagonal(squared_distances(x.detach())).median()))
    (found,) = torch.autograd.grad(rbf_kernel(x, "median").square().sum(), x)
    (expected,) = torch.autograd.grad(rbf_kernel(x, fixed).square().sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ({}, "contrastive", 0.9694209837),
        ({}, "hsic", 0.2 * 0.2899810756),
        ({"gamma": 0.1}, "hsic", 0.2 * 0.0117955945),
        ({"temperature": 0.05}, "contrastive", 4.3037811826),
    ],
)
def test_whole_loss_by_hand(settings: dict[str, float], name: str, expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    method, (signals, aux) = IBKD(**settings), example(dtype)  # type: ignore[arg-type]
    assert float(method.loss(signals, aux, 0.0)[name].detach()) == pytest.approx(expected, abs=tolerance)


def test_total_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    terms = IBKD().loss(*example(dtype), 0.0)
    assert sum(float(term.detach()) for term in terms.values()) == pytest.approx(1.0274171988, abs=tolerance)


def test_diagnostics_by_hand() -> None:
    signals, aux = example(torch.float64)
    with torch.no_grad():
        found = {name: float(value) for name, value in IBKD().diagnostics(signals, aux).items()}
    assert found["hsic"] == pytest.approx(0.2899810756, abs=1e-9)
    assert found["input_kernel"] == pytest.approx((math.exp(-1) + math.exp(-4) + math.exp(-5)) / 3, abs=1e-12)
    assert found["output_kernel"] == pytest.approx((math.exp(-2) + 2 * math.exp(-1)) / 3, abs=1e-12)
    assert IBKD(hsic_weight=0.0).diagnostics(signals, aux) == {}


def test_without_penalty_it_is_info_nce() -> None:
    signals, aux = example(torch.float64)
    terms = IBKD(hsic_weight=0.0, temperature=0.3).loss(signals, aux, 0.0)
    student = aux["decoder"](signals.student_BS)
    assert list(terms) == ["contrastive"]
    assert torch.equal(terms["contrastive"], info_nce(student, signals.teacher_final_BD, 0.3))


def test_scale_of_decoder_and_teacher_does_not_matter() -> None:
    signals, aux = example(torch.float64)
    expected = IBKD().loss(signals, aux, 0.0)["contrastive"]
    signals.teacher_final_BD.mul_(3)
    with torch.no_grad():
        for parameter in aux.parameters():
            parameter.mul_(5)
    torch.testing.assert_close(IBKD().loss(signals, aux, 0.0)["contrastive"], expected)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_input_gets_no_gradient(detach: bool, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = IBKD(detach_input=detach, gamma=0.1)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    penalty = method.loss(signals, aux, 0.0)["hsic"]
    leaves = (signals.student_layers_BLS, signals.student_BS)
    of_input, of_output = torch.autograd.grad(penalty, leaves, allow_unused=True)
    assert (of_input is None) == detach
    assert of_output is not None
    assert of_output.any()


def test_decoder_always_exists_and_stays_behind(dims: Callable[..., Dims]) -> None:
    for width in (6, 8):
        aux = IBKD().build_aux(dims(final=width))
        assert [tuple(parameter.shape) for parameter in aux.parameters()] == [(width, 6), (width,)]
        assert IBKD().exported_head(aux) is None


def test_asks_for_the_input_layer(dims: Callable[..., Dims]) -> None:
    assert IBKD().needs(dims()).student_layers == (0,)
    assert IBKD(input_layer=2).needs(dims()).student_layers == (2,)
    assert IBKD(hsic_weight=0.0).needs(dims()).student_layers == ()
    with pytest.raises(UnsuitableError, match="choose one from 0 to 2"):
        IBKD(input_layer=3).needs(dims())


def test_refuses_one_sentence_only_where_it_needs_two(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    aux = IBKD().build_aux(dims()).double()
    with pytest.raises(ValueError, match="batch"):
        IBKD().loss(fake(IBKD(), dims(), batch_size=1), aux, 0.0)
    alone = IBKD(hsic_weight=0.0)
    assert float(alone.loss(fake(alone, dims(), batch_size=1), aux, 0.0)["contrastive"].detach()) == 0


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"temperature": 0.0}, {"hsic_weight": -1.0}, {"input_layer": -1}])
def test_invalid_values_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        IBKD(**settings)  # type: ignore[arg-type]
