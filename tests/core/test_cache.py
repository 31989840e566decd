"""What is made once and kept: found, mended, bound to its key, and made by one process at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import Timeout

from distilbench.core import cache
from distilbench.core.cache import claim, find_or_make, is_there, is_usable, kept_arrays, locked, put
from distilbench.evaluation.vectors import representation
from distilbench.runs.prepare import texts as prepared_texts
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.sections.texts import DevSpec

NUMBERS, NAMES = np.arange(6.0).reshape(2, 3), np.array([[1, 2]])


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Mapping[str, np.ndarray[Any, Any]]:
        self.asked += 1
        return {"numbers": NUMBERS, "names": NAMES}


class Writer:
    """Counts how often it fills a folder."""

    def __init__(self, content: str = "x") -> None:
        self.content = content
        self.asked = 0

    def __call__(self, folder: Path) -> None:
        self.asked += 1
        (folder / "content").write_text(self.content)


def swap(one: Path, other: Path) -> None:
    aside = one.rename(one.parent.parent / "aside")
    other.rename(one)
    aside.rename(other)


def test_what_is_there_is_found_and_nothing_else_is_touched(tmp_path: Path) -> None:
    write, folder = Writer(), tmp_path / "things" / "a"
    assert not is_there(folder)
    for _ in range(2):
        assert (find_or_make(folder, write, "it") / "content").read_text() == "x"
    assert write.asked == 1
    assert is_there(folder)
    assert is_usable(folder, "it")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locks", "things"]


def test_what_is_there_is_found_in_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    write, folder = Writer(), tmp_path / "things" / "a"
    put(folder, write)
    (tmp_path / "locks").write_text("a file: no lock can be made")
    find_or_make(folder, write, "it")
    assert write.asked == 1


def test_one_that_lies_in_the_place_of_another_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writers = {name: Writer(name) for name in "ab"}
    folders = [find_or_make(tmp_path / "things" / name, write, "it") for name, write in writers.items()]
    swap(*folders)
    for folder in folders:
        assert not is_there(folder)
        find_or_make(folder, writers[folder.name], "it")
        assert (folder / "content").read_text() == folder.name
        assert f"it in {folder} belongs to another place; it is made again" in caplog.text
    assert [write.asked for write in writers.values()] == [2, 2]


def test_one_of_another_kind_is_made_again(tmp_path: Path) -> None:
    put(tmp_path / "others" / "a", Writer("other"))
    (tmp_path / "others").rename(tmp_path / "things")
    assert (find_or_make(tmp_path / "things" / "a", Writer(), "it") / "content").read_text() == "x"


def test_what_killed_processes_left_is_cleared_up(tmp_path: Path) -> None:
    (tmp_path / "things" / ".a.killed").mkdir(parents=True)
    find_or_make(tmp_path / "things" / "a", Writer(), "it")
    assert [path.name for path in (tmp_path / "things").iterdir()] == ["a"]


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        find_or_make(tmp_path / "things" / "a", fail, "it")
    assert not any((tmp_path / "things").iterdir())
    find_or_make(tmp_path / "things" / "a", Writer(), "it")


def test_an_open_folder_keeps_what_is_in_it_unless_it_is_anothers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / "things" / name for name in "ab"]
    for folder in folders:
        claim(folder, "they")
        (folder / "row").write_text(folder.name)
        claim(folder, "they")
        assert (folder / "row").read_text() == folder.name
    assert not caplog.text
    swap(*folders)
    for folder in folders:
        claim(folder, "they")
        assert not (folder / "row").exists()
        assert f"they in {folder} are damaged or belong to another place" in caplog.text


def test_who_waits_for_long_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "SILENT_SECONDS", 0.05)
    folder, write = tmp_path / "things" / "a", Writer()
    with ThreadPoolExecutor(1) as pool:
        with locked(folder, "it"):
            waiting = pool.submit(find_or_make, folder, write, "the thing")
            while "waiting" not in caplog.text and not waiting.done():
                time.sleep(0.01)
            time.sleep(0.2)
            assert not list(folder.parent.glob("*"))
        waiting.result()
    assert is_there(folder)
    assert caplog.text.count(f"waiting for another process that is making the thing ({folder})") == 1


def test_nobody_waits_for_another_artefact(tmp_path: Path) -> None:
    with locked(tmp_path / "things" / "a", "it"), locked(tmp_path / "things" / "b", "it", timeout=0):
        pass


def test_who_does_not_want_to_wait_need_not(tmp_path: Path) -> None:
    held = locked(tmp_path / "things" / "a", "it")
    with held, pytest.raises(Timeout), locked(tmp_path / "things" / "a", "it", timeout=0):
        raise AssertionError("two have the lock")
    with locked(tmp_path / "things" / "a", "it", timeout=0):
        pass


def test_what_is_kept_is_made_once_for_each_of_its_parts(tmp_path: Path) -> None:
    make = Maker()
    for text in ("a", "a", "b"):
        kept = kept_arrays(tmp_path, "things", make, text=text, count=1)
        assert list(kept) == ["names", "numbers"]
        np.testing.assert_array_equal(kept["numbers"], NUMBERS)
        assert kept["names"].dtype == NAMES.dtype
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
    views, dev = as_model(first.teacher).views, first.dev
    assert dev is not None
    gold_P = dev.dev_set.gold_P
    monkeypatch.setattr(representation, "views", None)
    monkeypatch.setattr(prepared_texts, "views_of", None)
    other = make_inputs(study, inputs.settings)
    assert list(as_model(other.teacher).views) == sorted(views)
    for name, values in views.items():
        np.testing.assert_array_equal(as_model(other.teacher).views[name], values)
    assert other.dev is not None
    np.testing.assert_array_equal(other.dev.dev_set.gold_P, gold_P)
