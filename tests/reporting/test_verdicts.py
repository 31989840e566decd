"""Verdicts from examples on disk: planted differences are found, equal methods are not told apart, and refusals."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from scipy.stats import chi2, spearmanr

from distilbench.analysis import rankings, stats
from distilbench.analysis.frame import BY_TYPE, OVERALL, make_study, row_names
from distilbench.analysis.inference import Inference
from distilbench.analysis.moderated import ScoreMatrix, row_variances
from distilbench.analysis.verdicts import Comparison
from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, read_record, read_study, to_dict
from distilbench.reporting import ReportOptions, build
from distilbench.reporting.cells import DASH
from distilbench.reporting.tables import verdicts as verdict_tables
from distilbench.reporting.tables.verdicts import MORE_EXAMPLES, seeds_to_settle
from distilbench.reporting.write import with_errors

Make = Callable[..., Record]
PAIRS, QUERIES = 300, 80
QUALITY = {"good": 0.6, "also-good": 0.6, "poor": 0.9}
"""Label -> noise of its similarities."""


def examples(noise: float, seed: int, spread: float) -> pd.DataFrame:
    """Two STS tasks and a retrieval task; the same gold and the same hard examples for all runs."""
    shared, own = np.random.default_rng(99), np.random.default_rng((seed, int(noise * 1000)))
    frames = []
    level = noise + spread * np.random.default_rng(seed).normal()
    for task in ("STS-A", "STS-B"):
        gold, hard = np.round(shared.uniform(0, 5, PAIRS), 1), shared.normal(size=PAIRS)
        similarity = gold / 5 + level * (hard + 0.2 * own.normal(size=PAIRS)) * 0.4
        frames.append(pd.DataFrame({"gold": gold, "similarity": similarity, "task": task}))
    ndcg = np.clip(1 - level * shared.uniform(size=QUERIES) + 0.02 * own.normal(size=QUERIES), 0, 1)
    frames.append(pd.DataFrame({"ndcg_at_10": ndcg, "task": "Search"}))
    return pd.concat([frame.assign(split="test", example=frame.index.astype(str)) for frame in frames])


def record_of(make: Make, label: str, seed: int, found: pd.DataFrame, role: str = "method") -> Record:
    scores = []
    for task in ("STS-A", "STS-B"):
        part = found[found["task"] == task]
        scores.append(float(spearmanr(part["gold"], part["similarity"]).statistic))
    scores.append(float(found["ndcg_at_10"].dropna().mean()))
    return make(label, seed, tuple(scores), role)


@pytest.fixture
def study_folder(make: Make, tmp_path: Path) -> Callable[..., Path]:
    def write(seeds: int = 4, quality: dict[str, float] = QUALITY, spread: float = 0.01) -> Path:
        folder = tmp_path / "results" / "demo"
        rows = [(label, seed, noise, "method") for label, noise in quality.items() for seed in range(1, seeds + 1)]
        rows += [("teacher", 0, 0.3, "ceiling"), *(("untrained", seed, 1.5, "floor") for seed in range(1, seeds + 1))]
        for number, (label, seed, noise, role) in enumerate(rows):
            # Rows of one quality differ by what is their own only.
            watched = [{"share": share, "sentences": 100 * share, "score": 1 - noise} for share in (0.5, 1.0)]
            found = examples(noise + number * 1e-3 * (role == "method" and label == "also-good"), seed, spread)
            record = replace(record_of(make, label, seed, found, role), response=watched if role == "method" else [])

            def leave(path: Path, record: Record = record, found: pd.DataFrame = found) -> None:
                dump_json(to_dict(record), path / RECORD_FILE)
                found.to_parquet(path / EXAMPLES_FILE, index=False)

            write_sealed(folder / record.run_id, leave)
        return folder

    return write


def inference_of(folder: Path, margin: float = 0.005) -> Inference:
    return with_errors(make_study("demo", read_study(folder), margin), folder)[1]


def named(inference: Inference, one: str, other: str, column: str = OVERALL) -> str | None:
    keys = {str(row["label"]): str(key) for key, row in inference.study.rows.iterrows()}
    return inference.verdict(keys[one], keys[other], column)


def test_a_planted_difference_is_found_in_both_directions(study_folder: Callable[..., Path]) -> None:
    inference = inference_of(study_folder())
    assert set(inference.columns) == {"STS-A", "STS-B", "Search", "STS", "Retrieval", OVERALL, BY_TYPE}
    for column in inference.columns:
        assert named(inference, "good", "poor", column) == "better"
        assert named(inference, "poor", "good", column) == "worse"
    assert named(inference, "poor", "untrained") == "better"
    assert named(inference, "good", "good") is None


def test_equal_methods_are_undecided_or_equivalent_by_the_margin(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    assert named(inference_of(folder, margin=1e-6), "good", "also-good") in ("undecided", "better", "worse")
    wide = inference_of(folder, margin=0.2)
    assert named(wide, "good", "also-good") == "equivalent"
    assert named(wide, "also-good", "good") == "equivalent"


def test_half_of_a_variance_is_the_pairs_own_and_half_that_of_the_row_in_the_middle(
    study_folder: Callable[..., Path],
) -> None:
    inference = inference_of(study_folder(seeds=3))
    keys = list(row_names(inference.study, "method"))
    scores = inference.study.averages[OVERALL].groupby(inference.study.runs["key"]).apply(np.array)
    # What the median of three variances of two degrees of freedom is worth.
    worth = 8 * (chi2.median(2) * chi2.pdf(chi2.median(2), 2)) ** 2 * (3 - 2)
    priors = []
    for one, other in combinations(keys, 2):
        item = inference.comparison(one, other)
        assert item is not None
        assert item.difference.seed_freedom == pytest.approx(worth + 2)
        own = float(np.var(scores[one] - scores[other], ddof=1))
        priors.append(((worth + 2) * 3 * item.difference.seed_variance - 2 * own) / worth)
    assert priors == pytest.approx([priors[0]] * 3)
    values = np.stack([scores[key] for key in keys])
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    assert 0.2 < priors[0] / (2 * (left**2).sum() / 4) < 5


@pytest.mark.parametrize(("rows", "seeds"), [(4, 3), (8, 2), (8, 5)])
def test_variances_of_rows_are_unbiased_and_a_wild_row_is_in_no_other(rows: int, seeds: int) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(3000, rows, seeds, 1)) + 20 * rng.normal(size=(3000, 1, seeds, 1))
    groups = np.zeros(rows, dtype=np.int64)

    def found(drawn: np.ndarray) -> np.ndarray:
        matrix = ScoreMatrix(drawn[0], np.zeros((rows, 1, rows, 1)), groups)
        return np.asarray(row_variances(matrix, drawn))

    np.testing.assert_allclose(found(drawn).mean(axis=(0, 2)), 1, rtol=0.1)
    drawn[:, 0] += 10 * rng.normal(size=(3000, seeds, 1))
    wild = found(drawn).mean(axis=(0, 2))
    np.testing.assert_allclose(wild[1:], 1, rtol=0.15)


def test_one_seed_decides_nothing_but_has_intervals_for_what_no_seed_changes(
    study_folder: Callable[..., Path],
) -> None:
    inference = inference_of(study_folder(seeds=1))
    assert {item.verdict for item in inference.comparisons()} == {"undecided"}
    widths = rankings.half_widths(inference)[OVERALL]
    assert widths.notna().tolist() == [str(key).startswith("ceiling") for key in widths.index]
    assert "With one seed no difference" in verdict_tables.power_notes(inference)[0]


def test_an_interval_covers_examples_as_well_as_seeds(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    plain = make_study("demo", read_study(folder))
    wider, _ = with_errors(plain, folder)
    methods = list(row_names(plain, "method"))
    assert (wider.average.half_width.loc[methods, OVERALL] > plain.average.half_width.loc[methods, OVERALL]).all()
    assert (wider.average.mean.dropna() == plain.average.mean.dropna()).all(axis=None)


def test_scores_that_the_examples_do_not_give_are_not_compared(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    path = next(folder.glob("good-1"))
    found = pd.read_parquet(path / EXAMPLES_FILE)
    found.loc[(found["task"] == "Search") & (found["example"] == "0"), "ndcg_at_10"] = 0.0
    record = json.loads((path / RECORD_FILE).read_text())

    def leave(target: Path) -> None:
        dump_json(record, target / RECORD_FILE)
        found.to_parquet(target / EXAMPLES_FILE, index=False)

    write_sealed(path, leave)
    assert set(inference_of(folder).columns) == {"STS-A", "STS-B", "STS"}


def test_runs_with_other_examples_are_not_compared(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    path = next(folder.glob("poor-2"))
    found = pd.read_parquet(path / EXAMPLES_FILE)
    found.loc[(found["task"] == "STS-A") & (found["example"] == "7"), "example"] = "another"
    record = json.loads((path / RECORD_FILE).read_text())

    def leave(target: Path) -> None:
        dump_json(record, target / RECORD_FILE)
        found.to_parquet(target / EXAMPLES_FILE, index=False)

    write_sealed(path, leave)
    assert set(inference_of(folder).columns) == {"STS-B", "Search", "Retrieval"}


def test_best_and_second_only_where_the_verdicts_say_so(study_folder: Callable[..., Path]) -> None:
    folder = study_folder(quality={"good": 0.6, "poor": 0.9, "poorer": 1.1})
    inference = inference_of(folder)
    labels = {
        str(inference.study.rows.at[key, "label"]): mark for key, mark in rankings.leaders(inference, OVERALL).items()
    }
    assert labels == {"good": "best", "poor": "second"}
    alike = inference_of(study_folder(quality={"good": 0.6, "also-good": 0.6}))
    undecided = {str(alike.study.rows.at[key, "label"]) for key in rankings.leaders(alike, OVERALL)}
    assert undecided <= {"good", "also-good"}


def test_with_two_seeds_nothing_is_marked_as_best(study_folder: Callable[..., Path]) -> None:
    folder = study_folder(seeds=2, quality={"good": 0.5, "poor": 1.5})
    inference = inference_of(folder)
    assert rankings.leaders(inference, OVERALL) == {}
    [page] = build(folder, folder.parent / "out", ReportOptions())
    notes = (page.parent / "tables" / "main.md").read_text(encoding="utf-8")
    assert "No method is marked as best: that takes 3 seeds." in notes
    assert "No method is marked as best" not in (
        build(study_folder(seeds=3, quality={"good": 0.5, "poor": 1.5}), folder.parent / "more", ReportOptions())[
            0
        ].parent
        / "tables"
        / "main.md"
    ).read_text(encoding="utf-8")


def test_rows_that_agree_to_the_last_digit_are_equivalent_whatever_else_varies(
    study_folder: Callable[..., Path],
) -> None:
    folder = study_folder(quality={"good": 0.6, "wild": 1.4, "poor": 0.9}, spread=0.2)
    for seed in range(1, 5):
        source = folder / f"good-{seed}"
        record = replace(read_record(source / RECORD_FILE), run_id=f"twin-{seed}", label="twin")
        found = pd.read_parquet(source / EXAMPLES_FILE)

        def leave(target: Path, record: Record = record, found: pd.DataFrame = found) -> None:
            dump_json(to_dict(record), target / RECORD_FILE)
            found.to_parquet(target / EXAMPLES_FILE, index=False)

        write_sealed(folder / f"twin-{seed}", leave)
    inference = inference_of(folder, margin=0.0001)
    for column in inference.columns:
        assert named(inference, "good", "twin", column) == "equivalent"


def test_a_row_that_keeps_one_seed_takes_no_errors_from_the_others(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    before = inference_of(folder)
    for seed in (2, 3, 4):
        shutil.rmtree(folder / f"poor-{seed}")
    after = inference_of(folder)
    assert named(after, "good", "also-good") == named(before, "good", "also-good")
    # Two rows are too few to say what a third varies by.
    assert named(after, "good", "poor") == "undecided"


def test_what_another_row_varies_by_decides_no_more_than_half_of_a_variance(study_folder: Callable[..., Path]) -> None:
    folder = study_folder(quality={"good": 0.6, "also-good": 0.6, "poor": 0.9, "poorer": 1.1})
    calm = inference_of(folder)
    for seed in range(1, 5):
        record = read_record(folder / f"poorer-{seed}" / RECORD_FILE)
        found = examples(1.1 + 0.15 * (-1) ** seed, seed, 0.0)

        def leave(target: Path, record: Record = record, found: pd.DataFrame = found) -> None:
            wild = [float(spearmanr(part["gold"], part["similarity"]).statistic) for part in sts(found)]
            wild.append(float(found["ndcg_at_10"].dropna().mean()))
            scores = {task: {"main_score": value} for task, value in zip(record.scores, wild, strict=True)}
            dump_json(to_dict(replace(record, scores=scores)), target / RECORD_FILE)
            found.to_parquet(target / EXAMPLES_FILE, index=False)

        write_sealed(folder / f"poorer-{seed}", leave)
    wild = inference_of(folder)
    keys = {str(row["label"]): str(key) for key, row in calm.study.rows.iterrows()}
    spread = [
        np.std([float(inference.study.averages[OVERALL].loc[f"poorer-{seed}"]) for seed in range(1, 5)])
        for inference in (calm, wild)
    ]
    assert spread[1] > 5 * spread[0]
    before, after = (inference.comparison(keys["good"], keys["also-good"]) for inference in (calm, wild))
    assert before is not None and after is not None
    assert after.difference.mean == before.difference.mean
    assert after.difference.example_variance == pytest.approx(before.difference.example_variance, rel=0.01)
    assert 0.5 <= after.difference.seed_variance / before.difference.seed_variance <= 2


def sts(found: pd.DataFrame) -> list[pd.DataFrame]:
    return [found[found["task"] == task] for task in ("STS-A", "STS-B")]


def test_who_diverged_more_often_is_neither_better_nor_equivalent(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    assert named(inference_of(folder), "good", "poor") == "better"
    record = read_record(folder / "good-4" / RECORD_FILE)
    lost = replace(record, status="diverged", scores={}, tasks={}, error="the loss is not finite")
    shutil.rmtree(folder / "good-4")
    write_sealed(folder / "good-4", lambda target: dump_json(to_dict(lost), target / RECORD_FILE))
    inference = inference_of(folder, margin=0.2)
    assert named(inference, "good", "poor") == named(inference, "poor", "good") == "undecided"
    assert named(inference, "good", "also-good") == "undecided"
    assert named(inference, "poor", "untrained") == "better"
    notes = verdict_tables.verdict_table(inference.study, inference).notes
    assert any("Runs diverged: good (1)." in note for note in notes)


def test_a_run_that_lacks_a_task_takes_it_from_no_other(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    whole = {column: named(inference_of(folder), "good", "poor", column) for column in inference_of(folder).columns}
    record = read_record(folder / "also-good-2" / RECORD_FILE)
    found = pd.read_parquet(folder / "also-good-2" / EXAMPLES_FILE)
    less = replace(
        record,
        tasks={name: facts for name, facts in record.tasks.items() if name != "Search"},
        scores={name: scores for name, scores in record.scores.items() if name != "Search"},
    )

    def leave(target: Path) -> None:
        dump_json(to_dict(less), target / RECORD_FILE)
        found[found["task"] != "Search"].to_parquet(target / EXAMPLES_FILE, index=False)

    write_sealed(folder / "also-good-2", leave)
    inference = inference_of(folder)
    assert {column: named(inference, "good", "poor", column) for column in inference.columns} == whole
    keys = {str(row["label"]): str(key) for key, row in inference.study.rows.iterrows()}
    seeds = {column: inference.runs(keys["also-good"], column).keys() for column in inference.columns}
    assert seeds["Search"] == seeds["Retrieval"] == seeds[OVERALL] == {1, 3, 4}
    assert seeds["STS"] == {1, 2, 3, 4}
    item = inference.comparison(keys["good"], keys["also-good"], "Search")
    assert item is not None and item.difference.seeds == 3 and np.isfinite(item.difference.error)
    build(folder, folder.parent / "out", ReportOptions())


def test_ranks_never_contradict_the_verdicts(study_folder: Callable[..., Path]) -> None:
    inference = inference_of(study_folder())
    ranks = rankings.ranks(inference, OVERALL)
    assert sorted(ranks["rank"]) == [1.0, 2.0, 3.0]
    assert (ranks["low"] <= ranks["rank"]).all() and (ranks["rank"] <= ranks["high"]).all()
    for key, row in ranks.iterrows():
        verdicts = [inference.verdict(str(key), str(other), OVERALL) for other in ranks.index if other != key]
        assert row["low"] == 1 + verdicts.count("worse") and row["high"] == 3 - verdicts.count("better")
    assert list(ranks.filter(like="poor", axis=0).iloc[0]) == [3.0, 3.0, 3.0]


def test_what_is_not_comparable_is_not_ranked_together(study_folder: Callable[..., Path]) -> None:
    inference = inference_of(study_folder())
    runs = inference.study.runs
    runs.loc[runs["label"] == "poor", "letters"] = "b"
    ranks = rankings.ranks(inference, OVERALL)
    assert sorted(str(runs.loc[runs["key"] == key, "label"].iloc[0]) for key in ranks.index) == ["also-good", "good"]
    assert ranks["rank"].sum() == pytest.approx(1 + 2)


def test_the_gap_closed_has_the_error_of_examples_too(study_folder: Callable[..., Path]) -> None:
    folder = study_folder()
    plain = make_study("demo", read_study(folder))
    study, inference = with_errors(plain, folder)
    keys = {str(row["label"]): str(key) for key, row in study.rows.iterrows()}
    wide, narrow = (float(item.gap.half_width[OVERALL].loc[keys["good"]]) for item in (study, plain))
    assert wide > narrow > 0
    # By hand: the share is (good - untrained) / (teacher - untrained), in every resample.
    replicates = {
        label: inference.values(list(inference.runs(keys[label]).values()), OVERALL)[1].mean(axis=0)
        for label in ("good", "untrained", "teacher")
    }
    shares = (replicates["good"] - replicates["untrained"]) / (replicates["teacher"] - replicates["untrained"])
    assert wide >= 1.9 * shares.std()


def test_interquartile_means_leave_out_the_odd_task_and_say_their_error(study_folder: Callable[..., Path]) -> None:
    inference = inference_of(study_folder())
    found = rankings.interquartile_means(inference)
    scores = inference.scores.groupby(inference.study.runs["key"])
    for key, own in scores:
        # Three tasks by four seeds: the middle half are the values of ranks 4 to 9.
        values = np.sort(own.to_numpy().ravel())
        if len(values) == 12:
            assert found.at[key, "mean"] == pytest.approx(values[3:9].mean())
    assert set(found.index) == set(inference.study.rows.index)
    assert (found["half_width"] > 0).all() and (found["half_width"] < 0.2).all()


def test_one_seed_has_no_interval_of_its_interquartile_mean(study_folder: Callable[..., Path]) -> None:
    inference = inference_of(study_folder(seeds=1))
    found = rankings.interquartile_means(inference)["half_width"]
    roles = inference.study.rows.loc[found.index, "role"]
    assert found[roles == "method"].isna().all() and found[roles == "ceiling"].notna().all()


def test_the_report_holds_verdicts_in_every_format(study_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = study_folder()
    [page] = build(folder, tmp_path / "out", ReportOptions(margin=0.01, reference="poor"))
    tables = page.parent / "tables"
    for name in ("verdicts", "verdict_matrix", "power"):
        assert {path.suffix for path in tables.glob(f"{name}.*")} >= {".md", ".tex", ".json"}
    content = json.loads((tables / "verdicts.json").read_text())
    assert len(content["values"]) == 6
    assert {line["Verdict"] for line in content["shown"]} <= {"better", "worse", "equivalent", "undecided"}
    assert all((page.parent / "figures" / f"{name}.svg").is_file() for name in ("differences", "ranks", "response"))
    text = page.read_text()
    assert "0.5 of the budget" in text and "IQM" in text
    assert "Verdicts" in text and "within 1 points" in text and "Power: with this design" in text
    assert "excludes 0" in (tables / "method_section.md").read_text()
    with pytest.raises(UserError, match="unknown method 'por'; did you mean 'poor'"):
        build(folder, tmp_path / "out", ReportOptions(reference="por"))


def test_power_on_the_command_line(study_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = study_folder()
    assert main(["power", str(folder), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["values"]
    assert len(lines) == 6
    assert all(line["Detectable"] > 0 for line in lines)
    assert main(["power", str(folder), "--delta", "50", "--json"]) == 0
    easy = json.loads(capsys.readouterr().out)["shown"]
    assert {line["Seeds needed"] for line in easy} == {"2"}
    assert {line["To be equivalent"] for line in easy} == {DASH}
    assert main(["power", str(folder), "--delta", "0", "--json"]) == 0
    alike = json.loads(capsys.readouterr().out)["shown"]
    assert {line["Seeds needed"] for line in alike} == {MORE_EXAMPLES}
    assert DASH not in {line["To be equivalent"] for line in alike}
    assert main(["power", str(folder)]) == 0
    assert "Seeds needed" in capsys.readouterr().out


def test_the_seeds_for_an_equivalence_show_it_as_often_as_they_should() -> None:
    """A pair that differs by nothing, by seeds alone: with so many seeds the interval lies within the margin in 80 % of
    studies, and with half of them seldom."""
    now = stats.Estimate(0.001, 5, 0.0004**2, 0.0)
    item = Comparison("a", "b", now, 0.0, 0.5, 0.5, 0.5, "undecided", 0.05)
    assert seeds_to_settle(item, margin=0.0005) is not None and seeds_to_settle(item, margin=0.0) is not None
    alike = replace(item, difference=replace(now, mean=0.0))
    seeds = seeds_to_settle(alike, margin=0.0005)
    assert seeds is not None

    def share(count: int) -> float:
        draws = np.random.default_rng(1).normal(scale=0.0004 * math.sqrt(5), size=(4000, count))
        widths = scipy_stats.t.ppf(0.975, count - 1) * draws.std(axis=1, ddof=1) / math.sqrt(count)
        return float((abs(draws.mean(axis=1)) + widths <= 0.0005).mean())

    assert 0.78 < share(seeds) < 0.95
    assert share(seeds // 2) < 0.6
