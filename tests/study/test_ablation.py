"""Ablations: the cells of each design, the parts of a study, and one clear sentence for factors that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.runs.prepare.inputs import inputs_of_parts
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import prepare
from distilbench.runs.trained import training_of
from distilbench.study.ablation import designs, parts
from distilbench.study.budget import Ledger
from distilbench.study.study import Study
from distilbench.study.study_file import load_study
from distilbench.training.stores.teacher_store import FINAL, TeacherStore

BASE: dict[str, Any] = {
    "name": "mine",
    "teacher": "some/teacher",
    "student": {"layers": 2, "width": 192},
    "text": {"source": "text.txt", "sentences": 500},
    "labelled": {"source": "embedded"},
    "budget": {"sentences": 1000},
    "seeds": 3,
    "tasks": ["embedded"],
}


def study(folder: Path, ablate: dict[str, Any], **changes: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**BASE, "ablate": ablate, **changes}, sort_keys=False))
    return load_study(str(path))


def labels(part: Study) -> list[str]:
    return [entry.label for entry in part.methods]


def test_one_at_a_time_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    made = study(tmp_path, {"ibkd": {"factors": {"hsic_weight": [0, 0.2], "kernel": ["imq", "linear"]}}})
    (part,) = parts(made)
    assert labels(part) == ["ibkd", "ibkd+hsic_weight-0", "ibkd+kernel-imq", "ibkd+kernel-linear"]
    found = [(entry.hyperparameters["hsic_weight"], entry.hyperparameters["kernel"]) for entry in part.methods]
    assert found == [(0.2, "rbf"), (0.0, "rbf"), (0.2, "imq"), (0.2, "linear")]
    assert part.seeds == [1, 2, 3] and part.ablate == {}
    (design,) = designs(made)
    assert design.factors == {"hsic_weight": ["0.2", "0"], "kernel": ["rbf", "imq", "linear"]}


def test_settings_of_the_study_make_parts_of_it(tmp_path: Path) -> None:
    factors = {"student.layers": [2, 3], "train.batch_size": 32, "text.sentences": 250, "student.width": None}
    made = study(tmp_path, {"mse": {"factors": factors}})
    found = [(labels(part), part.student.layers, part.student.width, part.train.batch_size) for part in parts(made)]
    assert found == [
        (["mse"], 2, 192, 64),
        (["mse+student.layers-3"], 3, 192, 64),
        (["mse+train.batch_size-32"], 2, 192, 32),
        (["mse+text.sentences-250"], 2, 192, 64),
        (["mse+student.width-unset"], 2, None, 64),
    ]
    assert [part.text.sentences for part in parts(made)] == [500, 500, 500, 250, 500]
    assert designs(made)[0].apart["train.batch_size"] == ["train.batch_size"]


def test_a_factorial_design_has_all_combinations_once(tmp_path: Path) -> None:
    factors = {"attention_weight": [1, 0], "procedure": ["id", "pid"], "head_reduction": ["mean", "sum"]}
    made = study(tmp_path, {"fact": {"of": "internal-kd", "design": "factorial", "factors": factors}})
    (part,) = parts(made)
    assert len(part.methods) == 8 and labels(part)[0] == "internal-kd"
    assert labels(part)[-1] == "internal-kd+attention_weight-0+procedure-pid+head_reduction-sum"
    (design,) = designs(made)
    assert [cell.label for cell in design.cells] == labels(part)
    assert len({tuple(cell.levels.values()) for cell in design.cells}) == 8


def test_cells_that_train_alike_are_one_row(tmp_path: Path) -> None:
    ablate = {
        "one": {"of": "ibkd", "factors": {"temperature": 0.05}},
        "two": {"of": {"cool": {"method": "ibkd", "temperature": 0.05}}, "factors": {"kernel": "linear"}},
    }
    made = study(tmp_path, ablate, methods=["ibkd"])
    assert [labels(part) for part in parts(made)] == [["ibkd", "ibkd+temperature-0.05", "cool+kernel-linear"]]
    assert [cell.label for cell in designs(made)[1].cells] == ["ibkd+temperature-0.05", "cool+kernel-linear"]


def test_a_recipe_loses_a_stage_or_a_term_of_one(tmp_path: Path) -> None:
    recipe = {"both": ["ibkd", {"ibkd-supervised": {"share": 0.25}}]}
    factors = {"ibkd-supervised.share": [0, 0.5], "ibkd-supervised.hsic_weight": 0}
    (part,) = parts(study(tmp_path, {"stage-2": {"of": recipe, "factors": factors}}))
    shares = {entry.label: [(stage.name, stage.share) for stage in entry.stages] for entry in part.methods}
    assert shares == {
        "both": [("ibkd", 0.75), ("ibkd-supervised", 0.25)],
        "both+ibkd-supervised.share-0": [("ibkd", 1.0)],
        "both+ibkd-supervised.share-0.5": [("ibkd", 0.5), ("ibkd-supervised", 0.5)],
        "both+ibkd-supervised.hsic_weight-0": [("ibkd", 0.75), ("ibkd-supervised", 0.25)],
    }
    assert part.methods[-1].stages[1].hyperparameters["hsic_weight"] == 0


def test_named_levels_change_several_hyperparameters(tmp_path: Path) -> None:
    levels = {"pca": {"projection": "teacher-pca"}, "head": {"projection": "shipped", "normalize": False}}
    made = study(tmp_path, {"mse": {"factors": {"widths": levels}}})
    assert labels(parts(made)[0]) == ["mse", "mse+widths-pca", "mse+widths-head"]
    assert designs(made)[0].factors == {"widths": ["as it is", "pca", "head"]}


@pytest.mark.parametrize(
    ("ablate", "expected"),
    [
        (
            {"ibkd": {"factors": {"temprature": 1}}},
            "ablate.ibkd: unknown factor of ibkd: 'temprature'; did you mean 'te",
        ),
        ({"ibkd": {"factors": {"student.layer": 1}}}, "unknown setting of student: 'layer'; did you mean 'layers'?"),
        ({"ibkd": {"factors": {"temperature": -1}}}, "temperature must be positive, got -1"),
        ({"ibkd": {"factors": {"temperature": 1.0}}}, "temperature has no level besides that of ibkd"),
        ({"ibdk": {"factors": {"temperature": 2}}}, "unknown method 'ibdk'; did you mean 'ibkd'?"),
        ({"ibkd": {"design": "factorial", "factors": {"kernel": "imq"}}}, "kernel has one level, a factorial design"),
        ({"ibkd": {"factors": {}}}, "ablate.ibkd.factors: dictionary should have at least 1 item"),
        ({"ibkd": {"factor": {"kernel": "imq"}}}, "unknown key 'factor'; did you mean 'factors'? in ablate.ibkd"),
        ({"ibkd": {"factors": {"x": {"a": 3}}}}, "x: the level 'a' must be a mapping"),
        ({"mse": {"factors": {"student.layers": 0}}}, "student.layers: input should be greater than 0"),
        ({"ibkd": {"design": "factorial", "factors": {"temperature": [*range(1, 300)]}}}, "299 cells, more than 256"),
        (
            {"a": {"of": {"a": ["mse", "ckd"]}, "factors": {"temperature": 3}}},
            "of the recipe a; begin with mse. or ckd.",
        ),
        ({"a": {"of": {"a": ["mse", "ckd"]}, "factors": {"mse.share": 1}}}, "shares of its stages must add up to 1"),
        ({"mse": {"factors": {"share": 0}}}, "unknown factor of mse: 'share'"),
        ({}, "methods: list should have at least 1 item, or the study a section `ablate`"),
    ],
)
def test_bad_ablations_are_one_sentence(tmp_path: Path, ablate: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        study(tmp_path, ablate)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_eight_cells_of_three_seeds_cost_one_teacher_pass(
    teacher_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = {"layer_map": ["all", "last"], "symmetric": [False, True], "student.layers": [2, 1]}
    changes = {
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file), "sentences": 64},
        "budget": {"sentences": 64},
        "train": {"batch_size": 32, "max_length": 32},
    }
    base = {"of": {"codir": {"num_negatives": 4, "shared_width": 8}}, "design": "factorial", "factors": factors}
    made = study(tmp_path, {"terms": base}, **changes)
    passed: list[int] = []
    ensure = TeacherStore.ensure

    def counted(store: TeacherStore, rows: Any) -> int:
        passed.append(ensure(store, rows))
        return passed[-1]

    monkeypatch.setattr(TeacherStore, "ensure", counted)
    settings = Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu")
    ledgers = []
    all_inputs = inputs_of_parts(parts(made), settings)
    for inputs in all_inputs:
        preflight(inputs)
    for run in (run for runs in prepare(all_inputs) for run in runs if run.cell.role == "method"):
        ledgers.append(Ledger())
        training_of(run, ledgers[-1], lambda _: None)
    assert len(ledgers) == 8 * 3
    # The layers that the cells read differ; the first pass stores them all, and every later run reads the store.
    assert sum(passed) == 64
    assert sum(ledger.teacher_sentences_stored for ledger in ledgers) == 24 * 64
    assert not any(ledger.teacher_sentences_online for ledger in ledgers)


def test_parts_that_store_signals_otherwise_have_stores_and_runs_of_their_own(
    teacher_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    made = study(
        tmp_path,
        {"mse": {"factors": {"train.signals": ["float32", "int8"]}}},
        teacher=str(teacher_folder),
        student={"layers": 1},
        text={"source": str(text_file), "evaluation_text": "keep"},
    )
    settings = Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu")
    prepared = prepare(inputs_of_parts(parts(made), settings, said.append))
    runs = [next(run for run in runs if run.cell.role == "method") for runs in prepared]
    assert runs[0].id != runs[1].id
    assert [run.identity["train"]["signals"] for run in runs] == ["float32", "int8"]
    stores = [run.store(run.stages[0]) for run in runs]
    for store in stores:
        store.ensure(np.arange(8))
    values, rounded = (store.read(FINAL, np.arange(8)) for store in stores)
    assert 0 < (values - rounded).abs().max() < 0.01
    assert [text.rpartition(", in ")[2] for text in said if "MB of disk" in text] == ["float32", "int8"]


def test_the_examples_of_the_page_on_ablations_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    ablate, tune = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    made = study(tmp_path, ablate["ablate"])
    assert [len(design.cells) for design in designs(made)] == [5, 4, 3, 3]
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump({**BASE, **tune, "methods": ["mse", "ibkd"]}))
    spec = load_study(str(path)).tune
    assert spec is not None and (spec.trials, spec.seeds) == (16, [0])
