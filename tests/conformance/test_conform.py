"""The conformance kit finds what it looks for: for every check, a method that breaks this promise and no other."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import distilbench_methods
from distilbench.cli.app import main
from distilbench.conformance import CHECKS, ConformanceResult, Kit, conform, run_check
from distilbench.conformance.fakes import Maker, make_dims
from distilbench.conformance.kit import batch_first, is_refusal
from distilbench.models import export as bench_export
from distilbench_methods.base import Dims, Method, Needs, Signals, State, UnsuitableError, matmul_flops
from distilbench_methods.space import Space, Span, space

Patch = dict[str, Any]


def wide(x: Tensor) -> Tensor:
    """What a linear layer gives under autocast, in float32."""
    return x.float() if x.dtype == torch.bfloat16 else x


@dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Keeps its contract, until a test replaces a part of it."""

    name: ClassVar[str] = "toy"
    source: ClassVar[str] = "made for this test"

    search_space: ClassVar[Space] = space(final_weight=Span(0.0, 3.0))

    final_weight: float = 1.0
    """Weight of the squared distance to the teacher's vector."""
    centre_weight: float = 0.5
    """Weight of the squared distance to a moving centre."""
    token_weight: float = 0.25
    """Weight of the mean square of the token states."""

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=self.final_weight > 0, student_hidden=(1,) if self.token_weight else ())

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.final_weight:
            aux["head"] = nn.Linear(dims.student_final, dims.teacher_final)
        if self.centre_weight:
            aux["state"] = State(centre=torch.zeros(dims.student_final))
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.final_weight:
            difference_BD = wide(aux["head"](signals.student_BS)) - signals.teacher_final_BD
            terms["final"] = self.final_weight * difference_BD.square().mean()
        if self.centre_weight:
            apart_BS = wide(signals.student_BS) - cast(State, aux["state"])["centre"]
            terms["centre"] = self.centre_weight * apart_BS.square().mean()
        if self.token_weight:
            mask_BT = signals.mask_BT
            square_BT = wide(signals.student_hidden[0]).square().mean(-1)
            terms["token"] = self.token_weight * ((square_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()
        return terms

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        if self.centre_weight:
            centre_S = cast(State, aux["state"])["centre"]
            centre_S.lerp_(signals.student_BS.mean(0).to(centre_S.dtype), 0.1)

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"] if self.final_weight else None

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        return {"length": signals.student_BS.norm(dim=-1).mean()}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        return matmul_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0


LOSS, NEEDS, BUILD, AFTER_STEP = Toy.loss, Toy.needs, Toy.build_aux, Toy.after_step
COUPLED = property(lambda self: "planted")


def is_whole(toy: Toy) -> bool:
    return bool(toy.final_weight and toy.centre_weight and toy.token_weight)


def loss_with(change: Callable[[Toy, Signals, nn.ModuleDict, dict[str, Tensor]], None]) -> Patch:
    """The toy's loss, whose terms a function may change."""

    def loss(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = LOSS(self, signals, aux, progress)
        change(self, signals, aux, terms)
        return terms

    return {"loss": loss}


def refuse(*_: object) -> Needs:
    raise UnsuitableError("planted refusal")


COUNTER = itertools.count()


def another_start(self: Toy, dims: Dims) -> nn.ModuleDict:
    aux = BUILD(self, dims)
    if self.centre_weight:
        cast(State, aux["state"])["centre"].fill_(float(next(COUNTER)))
    return aux


def idle_head(self: Toy, dims: Dims) -> nn.ModuleDict:
    aux = BUILD(self, dims)
    if is_whole(self):
        aux["idle"] = nn.Linear(2, 2)
    return aux


def doubling_head(self: Toy, dims: Dims) -> nn.ModuleDict:
    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    aux = BUILD(self, dims)
    if self.final_weight:
        aux["head"] = Doubling(dims.student_final, dims.teacher_final)
    return aux


def unused_layer(self: Toy, dims: Dims) -> Needs:
    return replace(NEEDS(self, dims), teacher_layers=(2,) if is_whole(self) else ())


def hidden_in_any_case(self: Toy, dims: Dims) -> Needs:
    return replace(NEEDS(self, dims), student_hidden=(1,))


def random_step(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
    torch.rand(())
    AFTER_STEP(self, signals, aux, progress)


def counting_step(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
    if self.centre_weight:
        cast(Any, aux["state"]).steps = getattr(aux["state"], "steps", 0) + 1
    AFTER_STEP(self, signals, aux, progress)


def frozen_by_steps(self: Toy, aux: nn.ModuleDict) -> int:
    return int(getattr(aux["state"], "steps", 0) > 0) if self.centre_weight else 0


def without_slope(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
    def flat(x: Tensor) -> Tensor:
        return x.detach() + 0.0 * x

    hidden = tuple(map(flat, signals.student_hidden or ()))
    return LOSS(self, replace(signals, student_BS=flat(signals.student_BS), student_hidden=hidden), aux, progress)


def add_constant_term(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    terms["constant"] = signals.student_BS.detach().new_zeros(())


def draw(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    terms["centre" if self.centre_weight else "final"] += 0.0 * torch.rand(())


def prefer_first_rows(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        place_B = torch.arange(len(signals.student_BS))
        terms["centre"] = terms["centre"] + self.centre_weight * (wide(signals.student_BS).sum(1) * place_B).mean()


def mean_over_padding(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.token_weight:
        terms["token"] = self.token_weight * signals.student_hidden[0].square().mean()


def hide_a_factor(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        with torch.no_grad():
            factor_BS = signals.student_BS.sin()
        terms["centre"] = terms["centre"] + self.centre_weight * (factor_BS * signals.student_BS).mean()


def square_the_weight(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.token_weight:
        terms["token"] = self.token_weight * terms["token"]


def cancel(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        terms["centre"] = self.centre_weight * (terms["centre"] / self.centre_weight + 3e4 - 3e4)


def more_under_autocast(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if torch.is_autocast_enabled("cpu") and self.final_weight:
        terms["final"] = 1.5 * terms["final"]


def sum_over_rows(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        terms["centre"] = terms["centre"] * len(signals.student_BS)


def train_a_stray(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        terms["centre"] = terms["centre"] * torch.ones((), requires_grad=True)


def look_at_a_value(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    assert sum(terms.values()).detach().item() < float("inf")  # type: ignore[union-attr]


def divide_by_lengths(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        length_B = wide(signals.student_BS).square().sum(-1).sqrt()
        terms["centre"] = terms["centre"] + self.centre_weight * length_B.mean()


def divide_by_the_others(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    if self.centre_weight:
        terms["centre"] = terms["centre"] * (1 + 1 / (len(signals.student_BS) - 1))


BROKEN: dict[str, tuple[Patch, str]] = {
    "describes-itself": ({"source": " "}, "`source` is empty"),
    "hyperparameters": ({"__eq__": lambda self, other: False}, "come back from JSON as"),
    "search-space": ({"search_space": space(final_weight=Span(2.0, 3.0))}, "2 to 3, which leaves out its default 1.0"),
    "suits-models": ({"needs": refuse}, "none of the 5 pairs of models that were tried suits it; the last: planted"),
    "counts": ({"negatives_per_step": lambda self, size: 1.5}, "negatives_per_step(1) is 1.5"),
    "seeded-start": ({"build_aux": another_start}, "another state.centre under the same seed"),
    "terms": (loss_with(add_constant_term), "the term constant carries no gradient"),
    "gradients": ({"loss": without_slope}, "no gradient reaches the student"),
    "heads": ({"build_aux": idle_head}, "idle.weight in aux gets no gradient"),
    "signals": ({"needs": unused_layer}, "it asks for teacher_layers_BLH at position 0, but neither"),
    "pure-loss": (loss_with(draw), "loss changes torch's random generator"),
    "after-step": ({"after_step": random_step}, "after_step changes torch's random generator"),
    "diagnostics": ({"diagnostics": lambda *_: {"loss": torch.zeros(())}}, "a column that the curve has already"),
    "batch-order": ({**loss_with(prefer_first_rows), "coupled": COUPLED}, "the term centre changes when the rows"),
    "padding": (loss_with(mean_over_padding), "the term token changes with what stands at padded positions"),
    "finite-differences": (loss_with(hide_a_factor), "along student_BS the loss has the slope"),
    "weight-zero": ({"needs": hidden_in_any_case}, "with token_weight=0, it asks for student_hidden at position 0"),
    "weight-factor": (loss_with(square_the_weight), "at half the token_weight, the term token is not 0.5 times"),
    "checkpoint": ({"after_step": counting_step, "frozen_layers": frozen_by_steps}, "frozen_layers is another"),
    "float32": (loss_with(cancel), "in float64"),
    "bfloat16": (loss_with(more_under_autocast), "under autocast the loss is"),
    "accumulation": (loss_with(sum_over_rows), "two half batches give another loss than the whole"),
    "export": ({"build_aux": doubling_head}, "the exported student gives other vectors"),
    "parameters": (loss_with(train_a_stray), "trains a tensor of shape [] that is not a parameter in aux"),
    "flops": ({"extra_flops": lambda *_: 0.0}, "extra_flops says 0 for a batch of 7"),
    "no-waiting": (loss_with(look_at_a_value), "it asks a tensor for its value"),
    "degenerate": (loss_with(divide_by_lengths), "on zero student vectors the gradient of student_BS is not finite"),
    "batch-of-one": ({**loss_with(divide_by_the_others), "coupled": COUPLED}, "ZeroDivisionError"),
}
"""A patch of the toy for each check, and what the kit must say about it."""


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Patch], Kit]:
    monkeypatch.setitem(distilbench_methods.BUILT_IN, "toy", f"{__name__}:Toy")

    def patched(patch: Patch) -> Kit:
        for name, value in patch.items():
            monkeypatch.setattr(Toy, name, value)
        return Kit("toy")

    return patched


def failures(outcomes: list[ConformanceResult]) -> dict[str, str]:
    return {outcome.check: outcome.explanation for outcome in outcomes if outcome.status == "failed"}


def test_a_method_that_keeps_its_contract_passes_every_check() -> None:
    outcomes = conform("toy")
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert {outcome.check: outcome for outcome in outcomes if outcome.status != "passed"} == {}
    assert all(outcome.promise.endswith(".") for outcome in outcomes)


def test_every_check_has_a_method_that_breaks_it() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.no_cover
@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_promise_fails_its_check_and_no_other(toy: Callable[[Patch], Kit], check: str) -> None:
    patch, explanation = BROKEN[check]
    kit = toy(patch)
    found = failures([run_check(kit, name) for name in CHECKS])
    assert found.keys() == {check}, found
    assert explanation in found[check]


def reads_what_it_did_not_ask_for(self: Toy, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
    return {"rows": signals.teacher_rows_MD.mean()}


def changes_state(self: Toy, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
    cast(State, aux["state"])["centre"].add_(1.0)
    return {}


def learning_teacher(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
    signals.teacher_final_BD.requires_grad_()
    return LOSS(self, signals, aux, progress)


def moving_head(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
    cast(nn.Linear, aux["head"]).weight.add_(1.0)


def late_buffer(self: Toy, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
    aux["state"].register_buffer(f"late{next(COUNTER)}", torch.zeros(()))


def forgotten_buffer(self: Toy, dims: Dims) -> nn.ModuleDict:
    aux = BUILD(self, dims)
    if self.centre_weight:
        aux["state"].register_buffer("centre", torch.zeros(dims.student_final), persistent=False)
    return aux


def nothing_to_fit(self: Toy, dims: Dims) -> Needs:
    return replace(NEEDS(self, dims), fit_rows=5)


def foreign_head(self: Toy, aux: nn.ModuleDict) -> nn.Module:
    return nn.Linear(7, 8)


def head_that_cannot_ship(self: Toy, dims: Dims) -> nn.ModuleDict:
    aux = BUILD(self, dims)
    if self.final_weight:
        aux["head"] = nn.Sequential(aux["head"], nn.LayerNorm(dims.teacher_final))
    return aux


def wrong_shape(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    terms["final"] = terms["final"][None]


def infinite(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    terms["final"] = terms["final"] * torch.inf


def draw_from_python(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    random.random()


def draw_from_numpy(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    np.random.random()


def other_name(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    terms["other"] = terms.pop("token")


def planted(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
    raise ValueError("planted, in a sentence that is clear")


FURTHER: list[tuple[str, Patch, str]] = [
    ("describes-itself", {"name": "other"}, "registered as 'toy', but its class calls itself 'other'"),
    ("hyperparameters", {"__dataclass_params__": None}, "must be a frozen dataclass"),
    ("search-space", {"search_space": space(unknown=Span(0, 1))}, "names unknown, which is no hyperparameter"),
    ("suits-models", {"needs": lambda *_: Needs(teacher_rows=next(COUNTER) + 1)}, "another answer"),
    ("counts", {"frozen_layers": lambda *_: 3}, "frozen_layers is 3, not a whole number from 0 to the student's 2"),
    ("counts", {"coupled": property(lambda self: None)}, "coupled is None, not text"),
    ("terms", {"loss": lambda *_: {}}, "the loss has no terms"),
    ("terms", loss_with(wrong_shape), "has the shape [1]"),
    ("terms", loss_with(infinite), "the term final is inf"),
    ("gradients", {"loss": learning_teacher}, "teacher_final_BD is given a gradient"),
    ("signals", {"diagnostics": reads_what_it_did_not_ask_for}, "it reads teacher_rows_MD, which needs() does not ask"),
    ("signals", {"needs": nothing_to_fit}, "it asks for fit_rows, but fit changes nothing"),
    ("pure-loss", {"diagnostics": changes_state}, "diagnostics changes aux.state.centre"),
    ("pure-loss", loss_with(draw_from_python), "loss changes Python's random generator"),
    ("pure-loss", loss_with(draw_from_numpy), "loss changes numpy's random generator"),
    ("pure-loss", {"diagnostics": lambda *_: {"n": torch.tensor(next(COUNTER))}}, "gives another n when asked again"),
    ("after-step", {"after_step": moving_head}, "after_step changes aux.head.weight"),
    ("after-step", {"after_step": late_buffer}, "after_step adds aux.state.late"),
    ("diagnostics", {"diagnostics": lambda *_: {"x": torch.zeros(2)}}, "the diagnostic x is [0.0, 0.0]"),
    ("weight-zero", loss_with(other_name), "has no term token"),
    ("checkpoint", {"build_aux": forgotten_buffer}, "the term centre is another: some state is not in the state dict"),
    ("accumulation", {"coupled": COUPLED}, "it says that 'planted', but two half batches give exactly"),
    ("export", {"exported_head": foreign_head}, "parameters that are not in aux"),
    ("export", {"build_aux": head_that_cannot_ship}, "cannot be exported: a head that ships is made of linear layers"),
    ("batch-order", loss_with(planted), "ValueError: planted, in a sentence that is clear (line "),
]


@pytest.mark.parametrize(("check", "patch", "explanation"), FURTHER)
def test_what_else_a_check_finds(toy: Callable[[Patch], Kit], check: str, patch: Patch, explanation: str) -> None:
    outcome = run_check(toy(patch), check)
    assert (outcome.status, explanation in outcome.explanation) == ("failed", True), outcome


def test_an_export_that_holds_more_than_the_student_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(student: Any, tokenizer: Any, folder: Path, card: str) -> None:
        bench_export.export(student, tokenizer, folder, card)
        save_file({"bank": torch.zeros(5)}, folder / "2_Dense" / "more.safetensors")

    monkeypatch.setattr("distilbench.conformance.products.export", export)
    assert "the exported folder holds" in run_check(Kit("toy"), "export").explanation


def test_what_the_loss_detaches_is_held_constant_and_said(toy: Callable[[Patch], Kit]) -> None:
    def detach(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
        terms["final"] = terms["final"] + (signals.student_BS.detach().sin() * signals.student_BS).mean()

    outcome = run_check(toy(loss_with(detach)), "finite-differences")
    assert (outcome.status, outcome.explanation) == ("passed", "with what the loss detaches held constant")


def test_a_clear_refusal_passes_and_is_shown(toy: Callable[[Patch], Kit]) -> None:
    def refuse_one(self: Toy, signals: Signals, aux: nn.ModuleDict, terms: dict[str, Tensor]) -> None:
        if len(signals.student_BS) < 2:
            raise ValueError("a batch needs two sentences; use a larger one")

    outcome = run_check(toy(loss_with(refuse_one)), "batch-of-one")
    assert (outcome.status, outcome.explanation) == ("passed", "refused: a batch needs two sentences; use a larger one")


def test_a_refusal_by_torch_is_none() -> None:
    with pytest.raises(ValueError, match="batch_size") as caught:
        nn.functional.cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    assert not is_refusal(caught.value)


def test_checks_leave_the_random_generators_alone(toy: Callable[[Patch], Kit]) -> None:
    before = (random.getstate(), torch.get_rng_state())
    run_check(toy(loss_with(draw_from_python)), "pure-loss")
    run_check(toy(loss_with(draw)), "pure-loss")
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_rows_are_told_by_the_names_of_the_fields() -> None:
    fields = set(Signals.__dataclass_fields__)
    whole = {"teacher_rows_MD", "masked_PS", "masked_target_P", "embedding_VS"}
    assert {field for field in fields if not batch_first(field)} == whole


def test_a_layer_has_its_values_whatever_else_is_asked_for() -> None:
    maker = Maker(make_dims(), 3, 4, torch.float64, 0)
    both = maker.signals(Needs(student_layers=(1, 2), teacher_layers=(0, 3), candidates=2))
    one = maker.signals(Needs(student_layers=(2,), teacher_layers=(3,), candidates=2))
    assert torch.equal(both.student_layers_BLS[:, 1:], one.student_layers_BLS)
    assert torch.equal(both.teacher_layers_BLH[:, 1:], one.teacher_layers_BLH)
    assert torch.equal(both.candidate_layers_BKLS[:, :, 1:], one.candidate_layers_BKLS)
    assert both.candidate_layers_BKLS.shape == (3, 2, 2, 6)


def test_settings_that_a_method_refuses_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="the method toy cannot be made with"):
        Kit("toy", {"no_such": 1})


def conformed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["conform", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_explains_and_has_an_exit_code(
    toy: Callable[[Patch], Kit], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = conformed(capsys, "toy", "--json", "token_weight=0")
    assert (code, {item["status"] for item in json.loads(out)}) == (0, {"passed"})
    toy({"source": " "})
    code, out, err = conformed(capsys, "toy")
    assert code == 1
    assert "describes-itself, failed: " in out
    assert f"{len(CHECKS) - 1} passed, 1 failed, 0 not applicable" in err
    code, out, _ = conformed(capsys, "toy", "--json")
    assert code == 1
    assert failures([ConformanceResult(**item) for item in json.loads(out)]).keys() == {"describes-itself"}


def test_the_command_takes_variants(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(distilbench_methods.VARIANTS, "light-toy", ("toy", {"token_weight": 0.0}))
    assert conformed(capsys, "light-toy", "--json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["toyy"], "unknown method 'toyy'; did you mean 'toy'?"),
        (["toy", "token_weigth=1"], "did you mean 'token_weight'?"),
        (["toy", "token_weight"], "is not of the form key=value"),
        (["toy", "token_weight=["], "is not readable YAML"),
        (["toy", "token_weight=many"], "toy: token_weight"),
    ],
)
def test_wrong_use_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    code, out, err = conformed(capsys, *arguments)
    assert (code, out, expected in err) == (2, "", True), err
