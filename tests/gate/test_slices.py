"""Slices: told from texts, compared as rows of their own, never a pass where there is too little to tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from distilbench.analysis import stats
from distilbench.core.errors import UserError
from distilbench.evaluation.slices import with_slices
from distilbench.evaluation.task_types.kinds import Sts
from distilbench.gate.baseline import Scores, bless, read_baseline
from distilbench.gate.check import CheckResult, check
from distilbench.gate.output import to_junit, to_text
from distilbench.gate.slices import read_list, with_list
from distilbench.records.record import SLICES

PAIRS, QUERIES = 240, 120
NAMES = ["negation", "numbers long", "", "negation long", "", ""]


def scores(noise: float = 0.3, seeds: int = 3, stream: int = 0, harm: str | None = None) -> Scores:
    """One row on pairs of STS and on queries; of the slice `harm` the similarities are noise."""
    shared, frames, main = np.random.default_rng(5), [], {}
    gold, hard = np.round(shared.uniform(0, 5, PAIRS), 1), shared.normal(size=PAIRS)
    names = pd.Series([NAMES[row % len(NAMES)] for row in range(PAIRS)])
    found = shared.uniform(size=QUERIES)
    for seed in range(1, seeds + 1):
        own = np.random.default_rng((seed, stream))
        value = gold / 5 + noise * (hard + 0.1 * own.normal(size=PAIRS))
        if harm is not None:
            value = np.where(names.str.split().map(lambda has: harm in has), own.uniform(size=PAIRS), value)
        ndcg = np.clip(found + 0.01 * own.normal(size=QUERIES), 0, 1)
        run = f"run-{seed}-{stream}"
        pairs = pd.DataFrame({"task": "Pairs", "gold": gold, "value": value, SLICES: names})
        queries = pd.DataFrame(
            {"task": "Search", "value": ndcg, SLICES: ["negation" if n < 5 else "" for n in range(QUERIES)]}
        )
        frames += [part.assign(run=run, split="test", example=part.index.astype(str)) for part in (pairs, queries)]
        main[run] = {"Pairs": float(spearmanr(gold, value).statistic), "Search": float(ndcg.mean())}
    runs = pd.DataFrame(
        [
            {"label": "mse", "seed": seed, "batches": f"{seed} {stream}", "weights": None}
            for seed in range(1, seeds + 1)
        ],
        index=list(main),
    )
    tasks = {
        name: {"data_sha256": name, "main_metric": metric, "type": kind, "precision": "fp32"}
        for name, metric, kind in (("Pairs", "cosine_spearman", "STS"), ("Search", "ndcg_at_10", "Retrieval"))
    }
    columns = ["run", "task", "split", "example", "gold", "value", SLICES]
    frame = pd.DataFrame.from_dict(main, orient="index")
    return Scores(runs, frame, pd.concat(frames)[columns].reset_index(drop=True), tasks, "2.0", None, {})


@pytest.fixture(scope="module")
def blessed(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    path = tmp_path_factory.mktemp("baseline") / "demo.json"
    bless(scores(), path)
    return read_baseline(path)


def against(candidate: Scores, baseline: Scores) -> CheckResult:
    return check(candidate, baseline, 0.005, 0.05)


def verdicts(outcome: CheckResult) -> dict[str, str]:
    return {line.column: line.verdict for line in outcome.lines}


def test_membership_is_told_from_texts() -> None:
    pairs = {
        "sentence1": ["A man isn't here", "He does n't sing", "Knots are tied", "Room 7", "short one", "It is nothing"],
        "sentence2": ["x", "x", "notable", "x", "and a far longer other text than any of the rest", "x"],
    }
    task: Any = SimpleNamespace(
        is_retrieval=False,
        tables=Sts(),
        instance=SimpleNamespace(column_names=("sentence1", "sentence2")),
        splits=lambda: [("default", "test", pairs)],
    )
    examples = pd.DataFrame({"split": "test", "example": [str(row) for row in range(6)], "value": 0.0})
    found = with_slices(examples, task)[SLICES].tolist()
    assert found == ["negation", "negation", "", "numbers", "long", "negation"]
    queries = {"queries": {"id": ["q", "r"], "text": ["not a long query of 10", "a"]}}
    task.is_retrieval, task.main_metric = True, "ndcg_at_10"
    task.splits = lambda: [("default", "test", queries)]
    examples = pd.DataFrame({"split": "test", "example": ["r", "q"]})
    assert with_slices(examples, task)[SLICES].tolist() == ["", "long negation numbers"]


def test_a_drop_in_a_slice_alone_is_caught_by_its_row(blessed: Scores) -> None:
    outcome = against(scores(stream=1, harm="negation"), blessed)
    found = verdicts(outcome)
    assert found["Pairs: negation"] == "regressed" and found["Pairs: numbers"] != "regressed"
    assert (outcome.verdict, outcome.exit_code) == ("regressed", 1)
    line = next(line for line in outcome.lines if line.column == "Pairs: negation")
    assert line.examples == {"Pairs": 80} and not line.decides
    assert line.baseline == pytest.approx(sliced_score(scores(), "negation"), abs=1e-5)
    text = to_text(outcome)
    assert "Pairs: negation 80" in text and "Search: negation 5" in text
    assert max(map(len, text.splitlines())) <= 80


def sliced_score(side: Scores, name: str) -> float:
    mine = side.examples[(side.examples["task"] == "Pairs") & side.examples[SLICES].str.contains(name)]
    return float(np.mean([spearmanr(part["gold"], part["value"]).statistic for _, part in mine.groupby("run")]))


def test_too_small_a_slice_is_never_a_pass_and_holds_nothing_up(blessed: Scores) -> None:
    outcome = against(scores(), blessed)
    (line,) = [line for line in outcome.lines if line.column == "Search: negation"]
    assert line.verdict == "inconclusive" and "5 examples are too few" in line.reason
    assert outcome.verdict == "pass"
    assert verdicts(outcome)["Pairs: negation"] == "pass"
    assert '<skipped message="Row: mse, On: Search: negation, Verdict: inconclusive: 5 examples' in to_junit(outcome)
    flat = with_one_gold(blessed)
    (line,) = [line for line in against(flat, flat).lines if line.column == "Pairs: numbers"]
    assert line.verdict == "inconclusive" and "same gold score" in line.reason


def with_one_gold(side: Scores) -> Scores:
    examples, task = side.examples.copy(), side.examples["task"] == "Pairs"
    examples.loc[task & examples[SLICES].str.contains("numbers"), "gold"] = 2.0
    changed = {
        run: float(spearmanr(part["gold"], part["value"]).statistic) for run, part in examples[task].groupby("run")
    }
    return replace(side, examples=examples, scores=side.scores.assign(Pairs=pd.Series(changed)))


def test_a_list_of_the_users_own_makes_rows(blessed: Scores, tmp_path: Path) -> None:
    path = tmp_path / "legal.csv"
    path.write_text("task,example,slice\n" + "".join(f"Pairs,{row},legal\n" for row in range(40)))
    listed = read_list(path)
    mine = replace(blessed, examples=with_list(blessed, listed))
    assert verdicts(against(scores(), mine))["Pairs: legal"] == "pass"
    bless(mine, tmp_path / "mine.json")
    assert verdicts(against(scores(), read_baseline(tmp_path / "mine.json")))["Pairs: legal"] == "pass"
    # Blessed with the list, it wants no second one, and takes none of the same name.
    with pytest.raises(UserError, match="a slice legal already"):
        with_list(read_baseline(tmp_path / "mine.json"), listed)
    rows = path.with_suffix(".jsonl")
    rows.write_text('{"task": "Search", "split": "test", "example": 7, "slice": "a"}\n')
    added = with_list(blessed, read_list(rows))
    assert added[added[SLICES] == "a"]["example"].unique().tolist() == ["7"]
    assert (added[SLICES] != blessed.examples[SLICES]).sum() == 3


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "x", r"none of \.csv, \.jsonl"),
        ("a.csv", "task,exampel,slice\nPairs,1,a\n", "unknown column 'example'; did you mean 'exampel'"),
        ("a.csv", "task,example,slice\n", "lists no example"),
        ("a.csv", "task,example,slice\nPairs,1,two words\n", "row 1 has the slice 'two words'"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.csv", "task,example,slice\nPears,1,a\n", "no scores of Pears; it has Pairs, Search"),
        ("a.csv", "task,example,slice\nPairs,1,a\nPairs,999,a\nPairs,998,a\n", r"no example Pairs 998 \(and 1 more\)"),
        ("a.csv", "task,example,slice\nPairs,1,long\n", "a slice long already"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(
    blessed: Scores, tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        with_list(blessed, read_list(tmp_path / name))


def test_the_unpaired_error_is_that_of_the_difference() -> None:
    """Known truth: score = row + seed + example + the run's own way with the example."""
    rng, count, errors, differences = np.random.default_rng(0), 100, [], []
    weights = rng.multinomial(count, np.full(count, 1 / count), size=100).T / count
    for _ in range(300):
        shared = 0.3 * rng.normal(size=count)
        sides = [0.004 * rng.normal(size=(runs, 1)) + shared + 0.1 * rng.normal(size=(runs, count)) for runs in (4, 6)]
        given = [part for side in sides for part in (side.mean(axis=1), side @ weights)]
        errors.append(stats.estimate_apart(*given).error)
        differences.append(given[0].mean() - given[2].mean())
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(differences), rel=0.1)
