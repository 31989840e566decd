"""The drift stage: what a breakage does to vectors is found, and what training anew does is not taken for one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.data.embedded.pinned import pinned_texts
from distilbench.gate.baseline import Scores, bless, read_baseline
from distilbench.gate.candidate import drift_line, encoder_of, is_model, with_vectors
from distilbench.gate.drift import Finding, drift, effective_dimensions, neighbours_kept, order_is_lost
from distilbench.gate.run import CheckOptions, bless_candidate, check_candidate, check_encoder
from distilbench.records.record import SLICES

Array = npt.NDArray[np.float64]
TEXTS, WIDTH = 120, 32


def vectors(seed: int = 0, *, unit: bool = True) -> Array:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(TEXTS, WIDTH)) * np.linspace(1, 2, WIDTH)
    return scaled(found) if unit else found


def broken(found: list[Finding]) -> set[str]:
    return {finding.name for finding in found if not finding.holds}


def scaled(x_NW: Array) -> Array:
    lengths: Array = np.linalg.norm(x_NW, axis=1, keepdims=True)
    return x_NW / lengths


def test_the_same_vectors_in_half_precision_hold_every_bound() -> None:
    now = vectors()
    assert broken(drift(now, now, now.astype(np.float16), same=True)) == set()


def shifted(x_NW: Array) -> Array:
    return scaled(x_NW + 0.01 * np.random.default_rng(1).normal(size=x_NW.shape))


def constant_dimension(x_NW: Array) -> Array:
    return scaled(np.where(np.arange(WIDTH) == 3, 0.0, x_NW))


def collapsed(x_NW: Array) -> Array:
    return scaled(x_NW[:1] + 0.05 * x_NW @ np.diag(np.arange(WIDTH) < 3))


BREAKAGES: dict[str, tuple[Callable[[Array], Array], set[str]]] = {
    "noise": (shifted, {"cosine"}),
    "longer": (lambda x: 1.1 * x, {"unit", "norm"}),
    "not a number": (lambda x: np.where(np.arange(WIDTH) == 3, np.nan, x), {"finite"}),
    "narrower": (lambda x: x[:, :-1], {"shape"}),
    "fewer texts": (lambda x: x[:-1], {"shape"}),
    "shuffled": (lambda x: x[::-1], {"cosine", "neighbours"}),
    "constant dimension": (constant_dimension, {"constant", "cosine"}),
    "collapsed": (collapsed, {"dimensions", "cosine", "neighbours"}),
    "repeated": (lambda x: np.repeat(x[::2], 2, axis=0), {"equal", "cosine"}),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_a_breakage_does_to_vectors_is_found(name: str) -> None:
    change, expected = BREAKAGES[name]
    now = change(vectors())
    assert expected <= broken(drift(now, now, vectors(), same=True))


def test_a_vector_that_depends_on_its_company_is_found() -> None:
    now = vectors()
    assert broken(drift(now, shifted(now), now, same=True)) == {"company"}
    assert broken(drift(now, shifted(now), now, same=False)) == {"company"}


def test_a_model_that_was_changed_on_purpose_only_has_to_be_sound() -> None:
    blessed = vectors()
    retrained = scaled(blessed + 0.1 * vectors(seed=1))
    assert broken(drift(retrained, retrained, blessed, same=False)) == set()
    assert "cosine" in broken(drift(retrained, retrained, blessed, same=True))
    assert broken(drift(blessed[::-1], blessed[::-1], blessed, same=False)) == {"neighbours"}
    narrow = collapsed(blessed)
    assert "dimensions" in broken(drift(narrow, narrow, blessed, same=False))


def test_length_counts_only_where_the_baseline_has_unit_length() -> None:
    plain = vectors(unit=False)
    assert broken(drift(2 * plain, 2 * plain, plain, same=False)) == set()
    assert broken(drift(2 * plain, 2 * plain, plain, same=True)) == {"norm", "variance"}


def test_measures_at_values_worked_by_hand() -> None:
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert effective_dimensions(square) == pytest.approx(2)
    assert effective_dimensions(square * [1, 0]) == pytest.approx(1)
    assert effective_dimensions(np.ones((4, 2))) == 0
    line = scaled(np.array([[1.0, 0.0], [1, 0.1], [0, 1], [0.1, 1]]))
    assert neighbours_kept(line, line, 1) == 1
    assert neighbours_kept(line, line[[0, 2, 1, 3]], 1) == 0
    assert order_is_lost(line[[1, 0, 2, 3]], line)
    assert not order_is_lost(line, line) and not order_is_lost(2 * line, line)


def test_the_pinned_texts_hold_what_breaks_quietly() -> None:
    pinned = pinned_texts()
    assert len(pinned) == len(set(pinned)) == 285
    assert max(len(text.split()) for text in pinned) > 512
    for has in (str.isupper, str.isdecimal, lambda text: not text.isascii()):
        assert sum(map(has, pinned)) > 0


@pytest.fixture(scope="module")
def blessed(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of the tiny model; its task is made up, so that only the drift stage can pass."""
    path = tmp_path_factory.mktemp("baseline") / "tiny.json"
    runs = pd.DataFrame([{"label": "tiny", "seed": 0, "batches": None, "weights": "w"}], index=["r"])
    examples = pd.DataFrame({"run": "r", "task": "T", "split": "test", "example": ["0"], "gold": 1.0, "value": 1.0})
    examples[SLICES] = ""
    tasks = {"T": {"data_sha256": "d", "main_metric": "m", "type": "STS", "precision": "fp32"}}
    scores = Scores(runs, pd.DataFrame({"T": [0.5]}, index=["r"]), examples, tasks, "2.0", None, {})
    bless(with_vectors(scores, {"r": teacher_folder}, "cpu"), path)
    return path


def test_a_model_passes_against_itself_and_its_copy(blessed: Path, teacher_folder: Path) -> None:
    outcome = check_encoder(encoder_of(teacher_folder, "cpu"), blessed, CheckOptions())
    assert (outcome.verdict, outcome.exit_code) == ("pass", 0)


def test_lost_order_is_named(blessed: Path, teacher_folder: Path) -> None:
    encode = encoder_of(teacher_folder, "cpu")
    line, _ = drift_line(lambda batch: encode(sorted(batch)), "tiny", read_baseline(blessed), same=True)
    assert line.verdict == "regressed"
    assert line.reason.startswith("the vectors are the baseline's, in another order")


def test_a_model_folder_is_stopped_before_it_is_scored(
    blessed: Path, teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "copy")
    pooling = folder / "1_Pooling" / "config.json"
    names = ("pooling_mode_mean_tokens", "pooling_mode_cls_token")
    swapped = {**json.loads(pooling.read_text()), **dict(zip(names, (False, True), strict=True))}
    pooling.write_text(json.dumps(swapped))
    assert is_model(folder)
    assert main(["check", str(folder), "--baseline", str(blessed), "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("REGRESSED: tiny on Drift: ")
    assert "not scored" in out and "--changed" in out
    assert max(map(len, out.splitlines())) <= 80


def test_what_is_not_clear_is_asked_for(blessed: Path, teacher_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--row: unknown row 'tinny'; did you mean 'tiny'"):
        check_candidate(teacher_folder, blessed, CheckOptions(row="tinny"))
    found = read_baseline(blessed)
    two = pd.concat([found.runs, found.runs.assign(label="other").set_axis(["s"])])
    scores = found.scores.reindex(["r", "s"]).fillna(0.5)
    bless(replace(found, runs=two, scores=scores), tmp_path / "two.json")
    with pytest.raises(UserError, match="with --row: other, tiny"):
        check_candidate(teacher_folder, tmp_path / "two.json", CheckOptions())
    with pytest.raises(UserError, match="no vectors of other"):
        check_candidate(teacher_folder, tmp_path / "two.json", CheckOptions(row="other"))
    with pytest.raises(UserError, match="name the tasks"):
        bless_candidate(teacher_folder, tmp_path / "x.json", CheckOptions())


def test_vectors_that_were_tampered_with_are_refused(blessed: Path, tmp_path: Path) -> None:
    for file in blessed.parent.iterdir():
        shutil.copy(file, tmp_path)
    vectors_file = tmp_path / "tiny.safetensors"
    whole = vectors_file.read_bytes()
    vectors_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is not what"):
        read_baseline(tmp_path / "tiny.json")
    vectors_file.unlink()
    with pytest.raises(UserError, match="is missing"):
        read_baseline(tmp_path / "tiny.json")
