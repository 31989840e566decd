"""mteb's benchmarks by name: their tasks, no more and no less of each, and what is said where they cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("mteb")

import mteb
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from distilbench.core.errors import UserError
from distilbench.evaluation.score import score
from distilbench.evaluation.task_types import benchmarks as benchmarks_module
from distilbench.evaluation.task_types.benchmarks import benchmark, benchmarks
from distilbench.evaluation.tasks.by_name import load_task, load_tasks
from distilbench.evaluation.tasks.embedded import DistilbenchSTS
from distilbench.evaluation.tasks.profiles import BENCHMARKS, PROFILES, expand, is_benchmark
from distilbench.evaluation.tasks.subsets import choose, parsed
from distilbench.models.model_folder import StoredModel
from distilbench.records.design import Benchmark, read_design, write_benchmarks
from distilbench.study.sections.texts import PartOfTask
from tests.conftest import Writes, shut_network
from tests.evaluation.test_task_types import classified_in_english

ENGLISH = "MTEB(eng, v2)"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_network(monkeypatch)


@pytest.mark.parametrize("name", [ENGLISH, "MTEB(deu, v1)", "MTEB(kor, v2)", "NanoBEIR"])
def test_its_tasks_are_those_of_mteb(name: str) -> None:
    expected = {
        (task.metadata.name, *map(frozenset, (task.hf_subsets, task.eval_splits))) for task in benchmarks()[name].tasks
    }

    found = set()
    for task in expand([name]):
        assert isinstance(task, str)
        spec = parsed(task)
        instance = mteb.get_task(spec if isinstance(spec, str) else spec.name)
        if isinstance(spec, PartOfTask):
            assert choose(instance, spec) == task
        found.add((instance.metadata.name, frozenset(instance.hf_subsets), frozenset(instance.eval_splits)))

    assert found == expected


def test_it_stands_beside_other_tasks() -> None:
    assert expand(["NanoBEIR", "nano", "BIOSSES"]) == [*expand(["NanoBEIR"]), "BIOSSES"]


def test_names_without_brackets_are_known() -> None:
    assert {name for name in benchmarks() if "(" not in name} == set(BENCHMARKS)
    names = {task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)} | set(PROFILES)
    assert not any(map(is_benchmark, names))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MTEB(eng, v3)", "unknown benchmark 'MTEB(eng, v3)'; did you mean 'MTEB(eng, v2)'?"),
        ("MTEB(Indic, v1)", "does not score (IN22ConvBitextMining: BitextMining, IN22Gen"),
        ("MTEB(Indic, v1)", "name 'MTEB(Indic, v1)@scored' for the 16 of its 20 tasks that it does"),
        ("BEIR", "(CQADupstackRetrieval: several tasks in one); name 'BEIR@scored' for the 14 of its 15 tasks"),
        ("MINERSBitextMining@scored", "none of the tasks of MINERSBitextMining is one that distilbench scores"),
        ("BEIRR(v1)@scored", "unknown benchmark 'BEIRR(v1)'"),
    ],
)
def test_others_are_refused(name: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        expand([name])
    assert said in str(refused.value)


@pytest.mark.parametrize(("name", "size", "out"), [("MTEB(Indic, v1)", 20, 4), ("BEIR", 15, 1), (ENGLISH, 41, 0)])
def test_tasks_that_are_not_scored_can_be_left_out(name: str, size: int, out: int) -> None:
    found = benchmark(name)
    assert (found.size, len(found.left_out)) == (size, out)
    assert expand([f"{name}@scored"]) == found.tasks
    # Each can be loaded under its name.
    for task in map(parsed, found.tasks):
        if isinstance(task, PartOfTask):
            choose(mteb.get_task(task.name), task)
    assert len(found.tasks) == size - out


class Foreign(AbsTaskBitextMining):  # type: ignore[misc]
    metadata = mteb.get_task("BUCC.v2").metadata


SCORED, FOREIGN = DistilbenchSTS, Foreign


@pytest.mark.parametrize(
    ("tasks", "of_it", "said"),
    [
        (
            ["Small(eng, v1)@scored"],
            [SCORED, FOREIGN],
            "1 of the 2 tasks of Small(eng, v1) are scored, so no mean here is the benchmark's; "
            "not scored: BUCC.v2 (BitextMining).",
        ),
        (["Small(eng, v1)"], [SCORED], "The tasks are all 1 of Small(eng, v1): Mean (Task) over them."),
        (
            ["Small(eng, v1)", {"own": {"source": "pairs.csv"}}],
            [SCORED],
            "All 1 tasks of Small(eng, v1) are scored, and others too, so no mean over tasks here is the benchmark's.",
        ),
    ],
)
def test_the_report_says_how_much_of_a_benchmark_it_is_of(
    tasks: list[Any],
    of_it: list[type[Any]],
    said: str,
    write_pairs: Writes,
    tmp_path: Path,
    study: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = SimpleNamespace(name="Small(eng, v1)", tasks=[task() for task in of_it])
    monkeypatch.setattr(benchmarks_module, "benchmarks", lambda: {small.name: small})
    benchmark.cache_clear()
    write_pairs(tmp_path)
    path = study(tasks=tasks)

    code, out, err = cli("run", path)

    assert code == 0, err
    assert said in " ".join(out.split())
    assert cli("report", "results")[0] == 0
    table = json.loads(Path("reports/tiny/tables/main.json").read_text(encoding="utf-8"))
    assert said in table["notes"]
    assert sum("Small(eng, v1)" in note for note in table["notes"]) == 1
    # Its own name stands for all of it or for nothing.
    if FOREIGN in of_it:
        code, _, err = cli("run", study(tasks=[small.name]))
        assert code == 2 and "name 'Small(eng, v1)@scored' for the 1 of its 2 tasks" in err
    benchmark.cache_clear()


def test_what_was_written_of_a_benchmark_is_checked(tmp_path: Path) -> None:
    write_benchmarks(tmp_path, [Benchmark("One(v1)", ["a"], {})])
    write_benchmarks(tmp_path, [Benchmark("Two(v1)", ["a"], {"b": "BitextMining"})])
    assert [item.name for item in read_design(tmp_path).benchmarks] == ["One(v1)", "Two(v1)"]
    path = tmp_path / "benchmarks.json"
    path.write_text(path.read_text(encoding="utf-8").replace("BitextMining", "STS"), encoding="utf-8")
    with pytest.raises(UserError, match=r"benchmarks\.json cannot be read"):
        read_design(tmp_path)


def test_a_mistyped_name_without_brackets_is_guessed() -> None:
    with pytest.raises(UserError, match="did you mean 'NanoBEIR-multilingual'"):
        load_task("NanoBEIR-multilingul", None)


def test_all_tasks_that_a_mirror_lacks_are_named_at_once(tmp_path: Path) -> None:
    wanted = expand(["LongEmbed"])

    with pytest.raises(UserError) as refused:
        load_tasks(["DistilbenchSTS", *wanted], tmp_path)

    said = str(refused.value)
    assert f"the mirror {tmp_path} lacks the data of {len(wanted)} tasks: " in said
    assert all(str(task) in said for task in wanted)
    assert "\n" not in said and "DistilbenchSTS" not in said


def test_a_study_and_prefetch_take_it(
    study: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = study(tasks=["LongEmbed"])

    code, _, err = cli("run", path, "--dry-run", "--mirror", tmp_path)
    assert code == 2 and all(str(task) in err for task in expand(["LongEmbed"]))

    code, out, err = cli("prefetch", path, "--out", tmp_path / "mirror")
    assert code != 0 and all(str(task) in out + err for task in expand(["LongEmbed"]))


def test_a_split_is_scored_alone(text_file: Path, teacher_folder: Path, tmp_path: Path) -> None:
    texts = list(dict.fromkeys(text_file.read_text(encoding="utf-8").splitlines()))
    classified_in_english(tmp_path / "mteb" / "MTOPDomainClassification", texts)
    whole, part = (load_task(f"MTOPDomainClassification@en{end}", tmp_path) for end in ("", "#test"))
    assert part.name == "MTOPDomainClassification@en#test"
    assert [split for _, split, _ in whole.splits()] == ["validation", "test"]
    assert [split for _, split, _ in part.splits()] == ["test"]
    spec = PartOfTask(name="MTOPDomainClassification", languages=("eng",), splits=("test",))
    assert load_task(spec, tmp_path).name == part.name

    model = StoredModel("teacher", teacher_folder)
    of_whole, of_part = score(model, [whole, part], tmp_path / "cache", "cpu")

    by_split = {
        split: np.mean([row["main_score"] for row in rows]) for split, rows in of_whole.mteb_result["scores"].items()
    }
    assert of_part.metrics["main_score"] == pytest.approx(by_split["test"], abs=1e-6)
    assert of_part.key != of_whole.key
    pd.testing.assert_frame_equal(
        of_part.examples[["split", "example", "accuracy"]].reset_index(drop=True),
        of_whole.examples.query("split == 'en/test'")[["split", "example", "accuracy"]].reset_index(drop=True),
    )
    with pytest.raises(UserError, match="did you mean 'test'"):
        load_task("MTOPDomainClassification@en#tst", tmp_path)
