"""Information-bottleneck distillation: values by hand, what HSIC ignores, gradients, bandwidths."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.functional import info_nce, unit, without_diagonal
from distilbench_methods.ibkd import IBKD
from distilbench_methods.kernels import Bandwidth, Kernel, hsic, kernel_dependence, kernel_matrix, squared_distances

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
    k, other, size = kernel_matrix(draw(5, 3), 0.3), kernel_matrix(draw(5, 2, seed=1), 0.7), 5
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


def test_without_diagonal() -> None:
    assert without_diagonal(torch.arange(9).view(3, 3)).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_median_bandwidth() -> None:
    x = column(0, 1, 3)  # squared distances 1, 4, 9
    torch.testing.assert_close(kernel_matrix(x, "median"), kernel_matrix(x, 1 / 8))
    z = draw(5, 2)
    torch.testing.assert_close(hsic(1000 * x.expand(3, 2), z[:3], "median"), hsic(x.expand(3, 2), z[:3], "median"))


def test_median_bandwidth_is_a_constant_to_the_gradient() -> None:
    x = draw(5, 3, grad=True)
    fixed = 1 / (2 * float(without_diagonal(squared_distances(x.detach())).median()))
    (found,) = torch.autograd.grad(kernel_matrix(x, "median").square().sum(), x)
    (expected,) = torch.autograd.grad(kernel_matrix(x, fixed).square().sum(), x)
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
    student = signals.student_BS.requires_grad_()
    terms = IBKD().loss(signals, aux, 0.0)
    of_hsic, of_contrast = (torch.autograd.grad(terms[name], student)[0].norm() for name in ("hsic", "contrastive"))
    assert found["gradient_ratio"] == pytest.approx(float(of_hsic / of_contrast), rel=1e-6)


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


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.0},
        {"gamma": "mean"},
        {"temperature": 0.0},
        {"hsic_weight": -1.0},
        {"input_layer": -1},
        {"extra_negatives": -1},
        {"kernel": "sigmoid"},
    ],
)
def test_invalid_values_are_refused(settings: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        IBKD(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "gamma", "entry"),
    [
        ("rbf", 1.0, math.exp(-2)),
        ("rbf", 0.5, math.exp(-1)),
        ("imq", 1.0, 3**-0.5),
        # As released: 1 / sqrt(d^2 + gamma), not 1 / sqrt(1 + gamma d^2), which is 1 / sqrt(2).
        ("imq", 0.5, 2.5**-0.5),
        ("linear", 1.0, -0.5),
        ("cosine", 1.0, 2 * 5**-0.5),
        # The one distance is the median: exp(-1/2) and 1 / sqrt(2 + 4).
        ("rbf", "median", math.exp(-0.5)),
        ("imq", "median", 6**-0.5),
    ],
)
def test_kernels_by_hand(kernel: Kernel, gamma: Bandwidth, entry: float) -> None:
    found = kernel_matrix(torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.float64), gamma, kernel)
    assert float(found[0, 1]) == pytest.approx(entry)
    assert torch.equal(found, found.T)


def test_cosine_dependence_is_the_linear_one_of_directions() -> None:
    x, z, lengths = draw(6, 3), draw(6, 2, seed=1), draw(6, 1, seed=2).abs() + 0.5
    expected = hsic(x, z, 1.0, "linear", True)
    torch.testing.assert_close(hsic(lengths * x, z, 1.0, "cosine"), expected)
    assert not torch.isclose(hsic(x, z, 1.0, "linear"), expected)


@pytest.mark.parametrize("kernel", ["imq", "linear", "cosine"])
def test_gradient_under_other_kernels(kernel: Kernel) -> None:
    fixed = draw(5, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: hsic(x, fixed, 0.5, kernel, True), (draw(5, 2, grad=True),))


def test_linear_hsic_is_the_squared_covariance() -> None:
    x, z = draw(6, 3), draw(6, 2, seed=1)
    covariance = (x - x.mean(0)).T @ (z - z.mean(0)) / 5
    torch.testing.assert_close(hsic(x, z, 1.0, "linear"), covariance.square().sum())


def test_linear_hsic_survives_a_large_common_mean() -> None:
    x, z = draw(16, 8), draw(16, 4, seed=1)
    found = hsic((x + 1000).float(), (z - 1000).float(), 1.0, "linear")
    assert float(found) == pytest.approx(float(hsic(x, z, 1.0, "linear")), rel=1e-3)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "linear", "cosine"])
@pytest.mark.parametrize("gamma", [0.5, "median"])
def test_duplicates_and_zero_vectors_have_finite_gradients(kernel: Kernel, gamma: Bandwidth) -> None:
    for x in (draw(1, 3).expand(4, 3).clone(), torch.zeros(4, 3, dtype=torch.float64)):
        for normalize in (False, True):
            value = hsic(x.requires_grad_(), draw(4, 2, seed=1), gamma, kernel, normalize)
            (gradient,) = torch.autograd.grad(value, x)
            assert float(value.detach()) == pytest.approx(0, abs=1e-12)
            assert torch.isfinite(gradient).all()


def test_normalized_inputs_ignore_lengths() -> None:
    x, z, lengths = draw(5, 3), draw(5, 2, seed=1), draw(5, 1, seed=2).abs() + 0.5
    expected = hsic(x, z, 1.0, "rbf", True)
    torch.testing.assert_close(hsic(lengths * x, z, 1.0, "rbf", True), expected)
    torch.testing.assert_close(hsic(x, lengths * z, 1.0, "rbf", True), expected)
    assert not torch.isclose(hsic(x, z, 1.0), expected)


def test_the_settings_of_the_kernels_reach_the_loss() -> None:
    signals, aux = example(torch.float64)
    x, z = signals.student_layers_BLS[:, 0], signals.student_BS
    method = IBKD(hsic_weight=1.0, kernel="imq", gamma=0.3, normalize_inputs=True)
    expected = hsic(x, z, 0.3, "imq", True)
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["hsic"], expected)
    with torch.no_grad():
        found = method.diagnostics(signals, aux)
    torch.testing.assert_close(found["hsic"], expected)
    torch.testing.assert_close(found["output_kernel"], without_diagonal(kernel_matrix(unit(z), 0.3, "imq")).mean())


def test_finite_differences_of_the_whole_loss() -> None:
    signals, aux = example(torch.float64)

    def total(z: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        contrast = info_nce(nn.functional.linear(z, weight, bias), signals.teacher_final_BD, 1.0)
        return contrast + 0.2 * hsic(x, z, 1.0)

    given = (signals.student_BS, signals.student_layers_BLS[:, 0], *aux.parameters())
    leaves = [leaf.detach().clone().requires_grad_() for leaf in given]
    assert torch.autograd.gradcheck(total, leaves, rtol=1e-5, atol=1e-8)
    terms = IBKD().loss(signals, aux, 0.0)
    torch.testing.assert_close(total(*leaves), terms["contrastive"] + terms["hsic"])


def test_extra_rows_are_negatives_of_every_anchor(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = IBKD(extra_negatives=3, hsic_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    candidates = torch.cat([signals.teacher_final_BD, signals.teacher_rows_MD])
    expected = info_nce(aux["decoder"](signals.student_BS), candidates, 1.0)
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["contrastive"], expected)
    assert method.needs(dims()).teacher_rows == 3
    assert method.negatives_per_step(8) == 10


def test_an_extra_row_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    decoder = nn.Linear(2, 2).to(dtype)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(2))
        decoder.bias.zero_()
    signals = Signals(
        index_B=torch.arange(2),
        mask_BT=torch.ones(2, 1),
        student_BS=torch.tensor([[1, 0], [1, 1]], dtype=dtype),
        teacher_final_BD=torch.tensor([[1, 0], [0, 2]], dtype=dtype),
        teacher_rows_MD=torch.tensor([[-1, 0]], dtype=dtype),
    )
    method = IBKD(extra_negatives=1, hsic_weight=0)
    found = method.loss(signals, nn.ModuleDict({"decoder": decoder}), 0.0)["contrastive"]
    assert float(found.detach()) == pytest.approx(0.6077361313, abs=tolerance)


def test_the_gradient_ratio_shows_an_inert_penalty(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    ratios = []
    for spread, gamma in ((1.0, 0.1), (100.0, 1.0)):
        method = IBKD(gamma=gamma)
        signals, aux = fake(method, dims()), method.build_aux(dims()).double()
        far = Signals(**{**signals.__dict__, "student_BS": spread * signals.student_BS.detach()})
        with torch.no_grad():
            found = method.diagnostics(far, aux)
        ratios.append(float(found["gradient_ratio"]))
    assert ratios[0] > 1e-3
    assert ratios[1] == 0


def test_the_gradient_ratio_is_finite_where_the_contrast_is_silent() -> None:
    signals, aux = example(torch.float32)
    signals.teacher_final_BD.zero_()
    with torch.no_grad():
        found = IBKD().diagnostics(signals, aux)["gradient_ratio"]
    # Lengths of gradients are of order 1 at most, and those of the contrast count as 1e-12 at least.
    assert 1 < float(found) < 1e13
