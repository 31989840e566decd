from __future__ import annotations

from collections.abc import Callable

import pytest

from distilbench.analysis.comparable import split
from distilbench.analysis.frame import make_study
from distilbench.records.record import Record
from distilbench.reporting.notes import difference_notes
from tests.reporting.conftest import TYPES, make_facts

Make = Callable[..., Record]
SCORES = (0.6, 0.7, 0.5)
FACTS = {name: make_facts(name, kind) for name, kind in TYPES.items()}
IN_BF16 = make_facts("STS-A", "STS") | {"precision": "bf16"}
VERSIONS = {"torch": "2.11", "transformers": "5.0", "mteb": "2.20"}


def test_equal_settings_make_one_set(plain: list[Record]) -> None:
    letters, differences = split(plain)

    assert differences == {}
    assert set(letters.values()) == {""}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"budget": {"currency": "sentences", "amount": 25600}}, "budget amount: [a] 12800, [b] 25600"),
        ({"teacher": {"sha256": "c" * 64}}, "teacher sha256: [a] aaaaaaaaaaaa..., [b] cccccccccccc..."),
        ({"train": {"learning_rate": 1.0}}, "train learning_rate: [a] 0.0005, [b] 1.0"),
        ({"text": {"sha256": "c" * 64}}, "text sha256"),
        (
            {"environment": {"mteb": "2.21", "torch": "2.11", "transformers": "5.0"}},
            "version of mteb: [a] 2.20, [b] 2.21",
        ),
        ({"hyperparameters": {"temperature": 0.1}}, "mse: temperature: [a] 0.05, [b] 0.1"),
        ({"tasks": FACTS | {"STS-A": make_facts("other", "STS")}}, "data_sha256 of STS-A"),
        ({"tasks": FACTS | {"STS-A": IN_BF16}}, "precision of STS-A: [a] fp32, [b] bf16"),
        ({"limit": 10}, "limit: [a] null, [b] 10"),
    ],
)
def test_a_different_setting_is_named(make: Make, changes: dict[str, object], name: str) -> None:
    records = [make("mse", 1, SCORES), make("mse", 2, SCORES, **changes)]

    assert split(records)[0] == {"mse-1": "a", "mse-2": "b"}
    assert name in difference_notes(make_study("demo", records))[0]


def test_two_runs_of_one_seed_are_never_two_seeds(make: Make) -> None:
    letters, _ = split([make("mse", 1, SCORES), make("mse", 1, SCORES, run_id="newer")])

    assert letters == {"mse-1": "a", "newer": "b"}


@pytest.mark.parametrize("own", ["parameters", "output_width"])
def test_an_exported_head_does_not_set_methods_apart(make: Make, own: str) -> None:
    other = make("ibkd", 1, SCORES)
    other.student[own] = 1

    assert split([make("mse", 1, SCORES), other])[1] == {}


def test_floor_and_ceiling_belong_to_every_set_that_they_fit(plain: list[Record], make: Make) -> None:
    more = make("mse", 3, SCORES, budget={"currency": "sentences", "amount": 1})
    letters, _ = split([*plain, more])

    assert letters["mse-3"] == "b"
    assert letters["ceiling-0"] == letters["floor-1"] == ""
