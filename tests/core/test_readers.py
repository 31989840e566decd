"""A reader beside a writer: nothing that is sound is missed or complained of, whatever the writer does meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from distilbench.core import sealed
from distilbench.core.errors import UserError
from distilbench.core.sealed import is_sealed, undisturbed, write_sealed
from distilbench.records.frames import read_curves
from distilbench.records.record import read_run, read_study
from tests.reporting.conftest import make_record, write_study

TIMES = 200
RECORDS = [make_record("mse", seed, (0.5, 0.6, 0.4)) for seed in (1, 2, 3)]


def seal_again(folder: str, at_once: bool) -> None:
    """Put the same runs in their places many times."""
    if not at_once:
        sealed._exchange = lambda *_: False
    for _ in range(TIMES // len(RECORDS) + 1):
        write_study(Path(folder), RECORDS)


@pytest.mark.parametrize("at_once", [True, False], ids=["exchanged", "moved"])
def test_a_reader_beside_a_writer_finds_all_and_complains_of_nothing(tmp_path: Path, at_once: bool) -> None:
    write_study(tmp_path, RECORDS)
    writer = multiprocessing.get_context("spawn").Process(target=seal_again, args=(str(tmp_path), at_once))
    writer.start()
    looks = 0
    try:
        # Until it has been there, and is gone.
        while writer.is_alive() or not looks:
            assert read_study(tmp_path) == RECORDS
            assert read_run(tmp_path / "mse-2") == RECORDS[1]
            assert len(read_curves(RECORDS, tmp_path)) == 40 * len(RECORDS)
            looks += 1
    finally:
        writer.join()
    assert writer.exitcode == 0 and looks > 10


def test_folders_change_places_at_once(tmp_path: Path) -> None:
    if sealed._renameat2() is None:
        pytest.skip("this system cannot exchange folders")
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    assert sealed._exchange(one, other)
    assert (one / "other").is_file() and (other / "one").is_file()
    assert not sealed._exchange(one, tmp_path / "nothing")


def test_damage_is_still_said_after_two_looks(tmp_path: Path) -> None:
    write_study(tmp_path, RECORDS[:1])
    (tmp_path / "mse-1" / "record.json").write_text("{}")
    for read in (lambda: read_study(tmp_path), lambda: read_run(tmp_path / "mse-1")):
        start = time.monotonic()
        with pytest.raises(UserError, match="is damaged"):
            read()
        assert time.monotonic() - start < 5
    with pytest.raises(UserError, match="is no run's folder"):
        read_run(tmp_path / "mse-2")


def test_what_was_away_for_a_moment_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    looks = []

    def read() -> str:
        looks.append(folder.exists())
        if not folder.exists():
            write_sealed(folder, lambda path: None)
            raise UserError("it is not there")
        return "sound"

    assert undisturbed(folder, read) == "sound" and looks == [False, True] and is_sealed(folder)


def test_a_folder_that_is_taken_away_is_waited_for(tmp_path: Path) -> None:
    """A listing between the two moves of a replacement lacks a folder that will be there again."""
    (tmp_path / ".x.abc.old").mkdir()
    looks = []

    def look() -> list[str]:
        looks.append(1)
        if len(looks) == 4:
            (tmp_path / "x").mkdir()
        return [path.name for path in tmp_path.glob("[!.]*")]

    assert sealed.listed(tmp_path, look) == ["x"]


def test_a_writer_may_rest_between_its_moves(tmp_path: Path) -> None:
    write_study(tmp_path, RECORDS[:1])
    folder, away = tmp_path / "mse-1", tmp_path / f".mse-1.abc{sealed.REPLACED}"
    folder.rename(away)
    writer = threading.Timer(0.3, away.rename, [folder])
    writer.start()
    assert read_run(folder) == RECORDS[0]
    writer.join()
