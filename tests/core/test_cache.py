"""Arrays that are computed once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilbench.core.cache import kept_arrays
from distilbench.evaluation import representation
from distilbench.runs.prepare import texts as prepared_texts
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.study.sections import DevSpec

NUMBERS, NAMES = np.arange(6.0).reshape(2, 3), np.array([[1, 2]])


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Mapping[str, np.ndarray[Any, Any]]:
        self.asked += 1
        return {"numbers": NUMBERS, "names": NAMES}


def test_what_is_kept_is_made_once_for_each_of_its_parts(tmp_path: Path) -> None:
    make = Maker()
    for text in ("a", "a", "b"):
        found = kept_arrays(tmp_path, "things", make, text=text, count=1)
        assert list(found) == ["names", "numbers"]
        np.testing.assert_array_equal(found["numbers"], NUMBERS)
        assert found["names"].dtype == NAMES.dtype
    assert make.asked == 2


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    make = Maker()
    kept_arrays(tmp_path, "things", make, text="a")
    [file] = tmp_path.glob("things/*/numbers.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(kept_arrays(tmp_path, "things", make, text="a")["numbers"], NUMBERS)
    assert make.asked == 2


def test_who_comes_together_waits_for_the_first(tmp_path: Path) -> None:
    make = Maker()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: kept_arrays(tmp_path, "things", make, text="a"), range(8)))
    assert make.asked == 1


def test_another_process_finds_what_the_teacher_gave(
    inputs: Inputs, labelled_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = DevSpec(source=str(labelled_file), columns=["anchor", "positive"])
    study = inputs.study.model_copy(update={"dev": watched})
    first = make_inputs(study, inputs.settings)
    views, dev = first.teacher.views, first.dev
    assert dev is not None
    gold_P = dev.dev_set.gold_P
    monkeypatch.setattr(representation, "views", None)
    monkeypatch.setattr(prepared_texts, "views_of", None)
    other = make_inputs(study, inputs.settings)
    assert list(other.teacher.views) == sorted(views)
    for name, values in views.items():
        np.testing.assert_array_equal(other.teacher.views[name], values)
    assert other.dev is not None
    np.testing.assert_array_equal(other.dev.dev_set.gold_P, gold_P)
