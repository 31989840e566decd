"""What every registered method must do, ours and those of other packages: the conformance kit over all of them."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from distilbench.conformance import CHECKS, Kit, run_check
from distilbench_methods import BUILT_IN, VARIANTS, load, registry
from distilbench_methods.base import Method, check_not_negative, check_positive

Settings = dict[str, Any]

FURTHER_SETTINGS: list[tuple[str, Settings]] = [
    ("mse", {"metric": "l2"}),
    ("mse", {"metric": "cosine"}),
    ("ibkd", {"gamma": "median", "temperature": 0.05, "input_layer": 1}),
    ("ibkd", {"detach_input": True, "gamma": 0.1}),
    ("ibkd", {"extra_negatives": 5, "kernel": "imq", "normalize_inputs": True}),
    ("ibkd", {"extra_negatives": 3, "hsic_weight": 0.0}),
    ("ibkd", {"kernel": "linear", "normalize_inputs": True, "gamma": "median"}),
    ("ibkd-supervised", {"gamma": "median", "kernel": "imq", "hard_negative_alpha": 2.0}),
    ("ibkd-supervised", {"hard_negatives": False, "kernel": "linear", "projected_width": 5}),
    ("ibkd-supervised", {"kernel": "cosine"}),
    ("codir", {"symmetric": True, "num_negatives": 7, "shared_width": 5, "bank_momentum": 0.0}),
    ("codir", {"final_weight": 0.0}),
    ("codir", {"contrastive_weight": 0.0}),
    ("ibkd-supervised", {"hard_negatives": False, "hsic_weight": 0.0}),
    ("ckd", {"queue_size": 0, "mse_weight": 1.0}),
    ("ckd", {"queue_size": 7, "exclude_repeats": False}),
    ("crd", {"final_weight": 0.0}),
    ("crd", {"contrastive_weight": 0.0}),
    ("codir-code", {"layer_map": "all", "layer_pooling": "mean"}),
    ("codir", {"false_negative_similarity": 0.3, "symmetric": True}),
    ("codir", {"layer_map": "last", "layer_pooling": "cls"}),
    ("codir-code", {"layer_map": "last", "final_weight": 0.0}),
    ("codir-code", {"contrastive_weight": 0.0}),
    ("crd", {"temperature": 0.01, "num_negatives": 40}),
    ("jasper", {"widths": (3, 5), "ranking_weight": 0.0}),
    ("jasper", {"widths": (3, 5)}),
    ("jasper", {"cosine_weight": 0.0, "ranking_sentences": 4}),
    ("tinybert", {"embedding_weight": 0.0, "attention_weight": 0.0}),
    ("tinybert", {"hidden_weight": 0.0, "final_weight": 0.0}),
    ("minilm", {"relation_heads": 2, "teacher_layer": 2}),
    ("minilm", {"final_weight": 0.0, "relation_heads": 1}),
    ("rankcse", {"contrastive_weight": 0.0}),
    ("rankcse", {"form": "listmle", "consistency_weight": 0.0}),
    ("rankcse", {"rank_weight": 0.0}),
    ("rankcse", {"lists": "within", "contrastive_weight": 0.0, "consistency_weight": 0.0}),
    ("simdist", {"final_weight": 1.0}),
    ("simdist", {"similarity_weight": 0.0, "final_weight": 1.0}),
    ("rkd", {"angle_weight": 0.0}),
    ("rkd", {"distance_weight": 0.0}),
    ("sp", {"normalize": False}),
    ("simcse", {"head": "none", "mlm_weight": 1.0}),
    ("simcse-supervised", {"hard_negatives": False}),
    ("margin-mse", {"num_negatives": 3, "similarity": "dot", "scale": 5.0}),
    ("distill-kl", {"num_candidates": 4, "similarity": "dot"}),
    ("dual-supervision", {"num_negatives": 3, "similarity": "dot", "scale": 5.0, "teacher_scale": 4.0}),
    ("dual-supervision", {"in_batch_weight": 0.0}),
    ("embed-distill", {"num_candidates": 3, "teacher_temperature": 0.1, "metric": "cosine"}),
    ("embed-distill", {"contrastive_weight": 0.0, "score_weight": 0.0, "query_weight": 0.0}),
    ("embed-distill", {"query_weight": 0.0, "document_weight": 0.0}),
    ("match-nce-gor", {"contrastive_weight": 0.0, "spread_form": "gor", "metric": "l2"}),
    ("match-nce-gor", {"contrastive_weight": 0.0, "spread_weight": 0.0, "match_negatives": True}),
    ("match-nce-gor", {"matching_weight": 0.0, "hard_negatives": False}),
    ("match-nce-gor", {"hardness": 2.0, "spread_weight": 0.0, "metric": "mse", "temperature": 0.5}),
    ("matryoshka", {"widths": (3,), "base": "match-nce-gor"}),
    ("matryoshka", {"widths": (3,), "base": "simcse"}),
    ("internal-kd", {"procedure": "sid", "freeze_below": True, "final_in_all_stages": True}),
    ("internal-kd", {"procedure": "pid", "epochs_per_layer": 0.5, "window": 3}),
    ("internal-kd", {"heads": "average", "state": "cls"}),
    ("internal-kd", {"head_reduction": "sum", "hidden_weight": 0.0}),
    ("internal-kd", {"attention_weight": 0.0}),
    ("internal-kd", {"final_weight": 0.0}),
]
CASES: list[tuple[str, Settings]] = [(name, {}) for name in registry()] + [*VARIANTS.values()]


def case_id(case: tuple[str, Settings]) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


PARAMS = [pytest.param(case, id=case_id(case)) for case in CASES]
PARAMS += [pytest.param(case, id=case_id(case), marks=pytest.mark.thorough) for case in FURTHER_SETTINGS]


@pytest.fixture(scope="module", params=PARAMS)
def kit(request: pytest.FixtureRequest) -> Kit:
    return Kit(*request.param)


@pytest.mark.no_cover
@pytest.mark.parametrize("check", CHECKS)
def test_keeps_its_contract(kit: Kit, check: str) -> None:
    outcome = run_check(kit, check)
    assert outcome.status != "failed", f"{outcome.promise} {outcome.explanation}"


def test_every_registered_class_is_a_method() -> None:
    assert BUILT_IN.keys() <= registry().keys()
    assert all(issubclass(load(name), Method) for name in registry())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_hyperparameters_are_finite(value: float) -> None:
    for check in (check_positive, check_not_negative):
        with pytest.raises(ValueError, match="weight must be finite"):
            check(weight=value)


def test_a_name_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mse", "elsewhere:MSE", "distilbench.methods")]
    monkeypatch.setattr("distilbench_methods.plug_ins", lambda: points)
    with pytest.raises(
        ValueError, match=r"'mse' is registered twice, by distilbench_methods\.mse:MSE and by elsewhere:MSE"
    ):
        registry()
    points[:] = [EntryPoint("other", value, "distilbench.methods") for value in ("a:A", "b:B")]
    with pytest.raises(ValueError, match="'other' is registered twice"):
        registry()
    points[1] = points[0]
    assert registry()["other"] == "a:A"


@pytest.mark.parametrize(
    "value", ["no_such_package:Method", "distilbench_methods.mse:Nothing", "distilbench_methods.mse", "json:dumps"]
)
def test_what_cannot_be_loaded_is_a_value_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setitem(BUILT_IN, "broken", value)
    with pytest.raises(ValueError, match="the method broken"):
        load("broken")
