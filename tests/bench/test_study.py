"""Studies: what is accepted, what the runs are, and one clear sentence for what is not accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import UserError
from bench.study import load_study, runs_of, shipped_studies

GOOD: dict[str, Any] = {
    "name": "mine",
    "teacher": "some/teacher",
    "student": {"layers": 2, "width": 192},
    "text": {"source": "text.txt"},
    "budget": {"sentences": 1000},
    "methods": ["mse", {"hot": {"method": "ibkd", "temperature": 0.05}}],
    "seeds": 2,
    "tasks": ["embedded"],
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (GOOD | changes).items() if value is not None}))
    return str(path)


def test_a_good_study(tmp_path: Path) -> None:
    study = load_study(write(tmp_path))
    assert [entry.label for entry in study.methods] == ["mse", "hot"]
    assert study.methods[1].hyperparameters["temperature"] == 0.05
    assert study.methods[1].hyperparameters["hsic_weight"] == 0.2
    assert (study.budget.currency, study.budget.amount) == ("sentences", 1000)
    assert study.seeds == [1, 2]


def test_the_runs_of_a_study(tmp_path: Path) -> None:
    runs = [(run.role, run.entry.label, run.seed) for run in runs_of(load_study(write(tmp_path)))]
    assert runs == [
        ("ceiling", "teacher", 0),
        ("floor", "untrained", 1),
        ("method", "mse", 1),
        ("method", "hot", 1),
        ("floor", "untrained", 2),
        ("method", "mse", 2),
        ("method", "hot", 2),
    ]


def test_overrides(tmp_path: Path) -> None:
    study = load_study(write(tmp_path), ["budget.steps=7", "seeds=[3]", "train.batch_size=8", "methods=[simcse]"])
    assert (study.budget.currency, study.budget.amount) == ("steps", 7)
    assert (study.seeds, study.train.batch_size, study.methods[0].name) == ([3], 8, "simcse")


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name: str) -> None:
    assert load_study(name).name == name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": ["msee"]}, "unknown method 'msee'; did you mean 'mse'?"),
        (
            {"methods": [{"ibkd": {"temprature": 1}}]},
            "unknown hyperparameter of ibkd: 'temprature'; did you mean 'temperature'?",
        ),
        ({"methods": [{"ibkd": {"temperature": "hot"}}]}, "ibkd: temperature"),
        ({"methods": [{"ibkd": {"temperature": -1}}]}, "temperature must be positive, got -1"),
        ({"methods": [{"a": {"method": "mse"}}, {"a": {"method": "mse"}}]}, "methods has 'a' twice"),
        ({"methods": ["mse", {"again": {"method": "mse"}}]}, "are the same method with the same hyperparameters"),
        ({"methods": []}, "methods: "),
        ({"methods": "mse"}, "methods: give a list"),
        ({"methods": [{"../up": {"method": "mse"}}]}, "'../up'"),
        ({"name": "../up"}, "name: "),
        ({"budgt": {"steps": 1}}, "unknown key 'budgt'; did you mean 'budget'?"),
        ({"student": {"layers": 2, "widht": 3}}, "unknown key 'widht'; did you mean 'width'? in student"),
        ({"budget": {"sentences": 0}}, "budget.sentences: input should be greater than 0"),
        ({"budget": {"seconds": -5}}, "budget.seconds: input should be greater than 0, got -5"),
        ({"budget": {"steps": 1, "tokens": 1}}, "budget: give exactly one of"),
        ({"budget": {}}, "budget: give exactly one of"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": "many"}, "seeds: "),
        ({"teacher": None}, "teacher is missing"),
        ({"tasks": []}, "tasks: "),
        ({"train": {"precision": "fp17"}}, "train.precision: "),
    ],
)
def test_bad_studies_are_one_sentence(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        load_study(path)
    message = str(caught.value)
    assert expected in message
    assert path in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "expected"), [("- a\n- b\n", "a list"), ("", "nothing"), ("a: [", "YAML"), ("7", "a int")]
)
def test_a_file_that_is_no_study(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        load_study(str(path))


def test_an_unknown_study_suggests_a_shipped_one() -> None:
    with pytest.raises(UserError, match="did you mean 'demo'"):
        load_study("dmo")


@pytest.mark.parametrize("override", ["seeds", "=1", "name.x=1", "seeds=[1"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match="override"):
        load_study(write(tmp_path), [override])
