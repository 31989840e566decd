"""Studies: what is accepted, what the runs are, and one clear sentence for what is not accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import yaml
from torch import Tensor, nn

import distilbench_methods
from distilbench.core.errors import UserError
from distilbench.study.study import runs_of
from distilbench.study.study_file import load_study, shipped_studies
from distilbench_methods.base import Dims, Method, Needs, Signals

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


def test_a_static_student_is_one_run(tmp_path: Path) -> None:
    runs = runs_of(load_study(write(tmp_path, static={})))
    assert [(run.role, run.entry.label) for run in runs[:2]] == [("ceiling", "teacher"), ("reference", "static")]
    assert sum(run.role == "reference" for run in runs) == 1


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


def test_a_recipe_divides_the_budget(tmp_path: Path) -> None:
    items = ["mse", {"ibkd-median": {"share": 0.5, "temperature": 0.1}}, "simcse-supervised"]
    (entry,) = load_study(write(tmp_path, methods=[{"three": items}])).methods
    assert [(stage.name, stage.share) for stage in entry.stages] == [
        ("mse", 0.25),
        ("ibkd", 0.5),
        ("simcse-supervised", 0.25),
    ]
    assert entry.name == "mse+ibkd+simcse-supervised"
    assert entry.hyperparameters["stages"][1] == {"method": "ibkd", "share": 0.5, **entry.stages[1].hyperparameters}
    assert entry.stages[1].hyperparameters["gamma"] == "median"


def test_variants_are_methods_with_settings(tmp_path: Path) -> None:
    items = ["ibkd-nce", {"mine": {"method": "ibkd-nce", "temperature": 0.1}}]
    first, second = load_study(write(tmp_path, methods=items)).methods
    assert (first.name, first.hyperparameters["hsic_weight"]) == ("ibkd", 0.0)
    assert (second.hyperparameters["hsic_weight"], second.hyperparameters["temperature"]) == (0.0, 0.1)


def test_overrides(tmp_path: Path) -> None:
    study = load_study(write(tmp_path), ["budget.steps=7", "seeds=[3]", "train.batch_size=8", "methods=[simcse]"])
    assert (study.budget.currency, study.budget.amount) == ("steps", 7)
    assert (study.seeds, study.train.batch_size, study.methods[0].name) == ([3], 8, "simcse")


def test_an_override_changes_one_place_only(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    shared = "dev: &pairs {source: pairs.csv, columns: [a, b], rows: 9}\nlabelled: *pairs\n"
    path.write_text(yaml.safe_dump(GOOD) + shared)
    budget = {"steps": 3}
    study = load_study(str(path), ["dev.rows=5", "budget.tokens=7"], changes={"budget": budget})
    assert study.dev is not None and study.labelled is not None
    assert (study.dev.rows, study.labelled.rows, budget) == (5, 9, {"steps": 3})


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
        ({"train": {"learning_rate": math.inf}}, "train.learning_rate: input should be a finite number"),
        ({"train": {"weight_decay": math.nan}}, "train.weight_decay: "),
        ({"budget": {"seconds": math.inf}}, "budget.seconds: input should be a finite number"),
        ({"budget": {"flops": math.nan}}, "budget.flops: "),
        ({"methods": [{"ibkd": {"temperature": math.inf}}]}, "ibkd: temperature must be finite, got inf"),
        ({"methods": [{"ibkd": {"hsic_weight": math.nan}}]}, "ibkd: hsic_weight must be finite, got nan"),
        ({"methods": [{"x": {"method": ["mse"]}}]}, "labels and names of methods are text"),
        ({"methods": [{1: {"method": "mse"}}]}, "labels and names of methods are text"),
        ({"methods": [{"mse": {1: 2}}]}, "unknown hyperparameter of mse: '1'"),
        ({"methods": [{"a": ["mse"]}]}, "a: a recipe has two or more stages"),
        ({"methods": [{"a": ["mse", 3]}]}, "3 is neither a method name nor"),
        ({"methods": [{"a": ["mse", {"b": ["mse", "mse"]}]}]}, "is no stage; give a method name"),
        ({"methods": [{"a": ["mse", {"ckd": {"share": 1.5}}]}]}, "less than 1"),
        ({"methods": [{"a": [{"mse": {"share": 0.5}}, {"ckd": {"share": 0.4}}]}]}, "a: the shares of its stages must"),
        ({"methods": [{"a": [{"mse": {"share": 0.7}}, {"ckd": {"share": 0.4}}, "sp"]}]}, "must add up to 1"),
        ({"methods": [{"mse": {"share": 0.5}}]}, "mse: share is for the stages of a recipe"),
        ({"methods": ["ibkd-medain"]}, "did you mean 'ibkd-median'?"),
        ({"labelled": {"source": "x.csv", "columns": ["a"]}}, "labelled.columns: list should have at least 2 items"),
        ({"labelled": {"source": "x.csv", "scores": ["a"]}}, "labelled: scores names 1 columns for 2 candidates"),
        ({"labelled": {"source": "embedded", "scores": ["a", "b"]}}, "the embedded text has no scores"),
        ({"static": {"width": 0}}, "static.width: input should be greater than 0"),
        ({"static": {"wdth": 3}}, "unknown key 'wdth'; did you mean 'width'? in static"),
        ({"student": {"layers": []}}, "student.layers: list should have at least 1 item"),
        ({"student": {"layers": [0]}}, "student.layers.0: input should be greater than 0"),
        ({"student": {"layers": 2, "dropout": 0.95}}, "student.dropout: input should be less than or equal to 0.9"),
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
    ("content", "expected"),
    [
        ("- a\n- b\n", "a list"),
        ("", "nothing"),
        ("a: [", "YAML"),
        ("7", "a int"),
        ("name: !!timestamp 2024-13-45", "YAML: month must be"),
        ("name: !!bool maybe", "YAML: a value does not fit its tag"),
        ("[" * 1000, "YAML: maximum recursion"),
        ("name: a\nseeds: 2\nname: b\n", "the key 'name' is given twice, again in line 3"),
        ("text: {source: a, source: b}", "the key 'source' is given twice"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        load_study(str(path))


def test_an_unknown_study_suggests_a_shipped_one() -> None:
    with pytest.raises(UserError, match="did you mean 'demo'"):
        load_study("dmo")


@pytest.mark.parametrize(
    "override", ["seeds", "=1", "name.x=1", "seeds=[1", "name=!!timestamp 2024-13-45", "text={source: a, source: b}"]
)
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match="override"):
        load_study(write(tmp_path), [override])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("010", 10), ("0x10", 16), ("0o10", 8), ("+7", 7), ("1e3", 1000), ("'12'", 12)],
)
def test_numbers_are_those_of_yaml_1_2(tmp_path: Path, text: str, expected: int) -> None:
    assert load_study(write(tmp_path), [f"budget.steps={text}"]).budget.steps == expected


@pytest.mark.parametrize("text", ["2:30", "yes", "on", "0b11", "1,000", "2001-01-01"])
def test_what_was_a_number_in_yaml_1_1_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=rf"budget.steps: input should be a valid integer.*'{text}'"):
        load_study(write(tmp_path), [f"budget.steps={text}"])


def test_words_stay_words(tmp_path: Path) -> None:
    for word in ("no", "off", "2001-01-01", "1_0a", "12e03x", "0o9"):
        assert load_study(write(tmp_path), [f"name={word}"]).name == word
    assert load_study(write(tmp_path), ["student={<<: {layers: 2}, width: 192}"]).student.width == 192


def test_too_many_seeds_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seeds: list should have at most 1000 items"):
        load_study(write(tmp_path), [f"seeds={list(range(100_000))}"])


@dataclass(frozen=True)
class Unchecked(Method):
    """A method that looks at its hyperparameters only when it runs."""

    name: ClassVar[str] = "unchecked"
    source: ClassVar[str] = "none"
    weight: float = 1.0

    def needs(self, dims: Dims) -> Needs:
        return Needs()

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        return {}


def test_hyperparameters_are_finite_even_where_the_method_does_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(distilbench_methods.BUILT_IN, "unchecked", "elsewhere:Unchecked")
    monkeypatch.setattr(distilbench_methods, "load", lambda _: cast(Any, Unchecked))
    with pytest.raises(UserError, match="unchecked: weight must be finite, got inf"):
        load_study(write(tmp_path, methods=[{"unchecked": {"weight": math.inf}}]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no_such_package.module:Method", "cannot be loaded from no_such_package.module:Method: ModuleNotFoundError"),
        ("distilbench_methods.mse:Nothing", "cannot be loaded from distilbench_methods.mse:Nothing: AttributeError"),
        ("distilbench_methods.mse:check_one_of", "which is no dataclass made from Method"),
    ],
)
def test_a_broken_method_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setitem(distilbench_methods.BUILT_IN, "broken", value)
    assert load_study(write(tmp_path)).name == "mine"
    with pytest.raises(UserError) as caught:
        load_study(write(tmp_path, methods=["broken"]))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", ["flops=2e12", "seconds=30", "sentences=4000"])
def test_one_flag_makes_the_study_of_another_budget(budget: str) -> None:
    currency, amount = budget.split("=")
    plain, other = load_study("ci"), load_study("ci", budget=budget)
    assert (other.name, other.budget.currency, other.budget.amount) == (f"ci-{currency}", currency, float(amount))
    assert other.model_dump(exclude={"name", "budget"}) == plain.model_dump(exclude={"name", "budget"})


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [("flops", "not of the form key=value"), ("flop=3", "did you mean 'flops'"), ("flops=many", "budget.flops")],
)
def test_a_budget_that_is_none(budget: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_study("ci", budget=budget)
