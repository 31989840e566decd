"""Folders are there whole or not at all; a changed byte is noticed; what a killed process left is put right."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from distilbench.core import sealed as artefact
from distilbench.core.sealed import (
    SUMS_FILE,
    clear_up,
    damage,
    disk_trouble,
    is_sealed,
    is_sound,
    write_folder_atomically,
    write_sealed,
)


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "a.txt").write_text("alpha\n")
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sealed(tmp_path / "x", fill)
    return tmp_path / "x"


def test_a_sealed_folder_is_sound_and_sha256sum_agrees(folder: Path) -> None:
    assert damage(folder) is None
    assert is_sound(folder, "it")
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=folder, capture_output=True, check=True)
    assert done.stdout.count(b": OK") == 2


def test_every_single_byte_counts(folder: Path) -> None:
    for path in (folder / "a.txt", folder / "inner" / "b.bin", folder / SUMS_FILE):
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            assert damage(folder), (path, place)
        path.write_bytes(content)
    assert damage(folder) is None


def test_damage_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "a.txt").write_text("beta\n")
    assert damage(folder) == "a.txt is not as it was written"
    assert not is_sound(folder, "the thing")
    assert f"the thing in {folder} is damaged (a.txt is not as it was written); it is made again" in caplog.text


def test_added_and_missing_files_are_damage(folder: Path) -> None:
    (folder / "more").touch()
    assert damage(folder) == "more is not as it was written"
    (folder / "more").unlink()
    (folder / "a.txt").unlink()
    assert damage(folder) == f"{SUMS_FILE} is not as it was written"
    (folder / SUMS_FILE).unlink()
    assert "cannot be read" in str(damage(folder))
    assert not is_sealed(folder)


def test_files_that_may_be_left_out_must_be_whole_where_they_are(folder: Path) -> None:
    may_lack = ("inner/b.bin", "never.txt")
    content = (folder / "inner" / "b.bin").read_bytes()
    (folder / "inner" / "b.bin").write_bytes(content[:-1])
    assert damage(folder, may_lack) == "inner/b.bin is not as it was written"
    (folder / "inner" / "b.bin").unlink()
    assert damage(folder, may_lack) is None
    assert damage(folder) == f"{SUMS_FILE} is not as it was written"
    (folder / "a.txt").unlink()
    assert damage(folder, may_lack) == f"{SUMS_FILE} is not as it was written"


def test_a_failing_writer_leaves_what_was_there(folder: Path) -> None:
    def fail(path: Path) -> None:
        (path / "half").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_sealed(folder, fail)
    assert damage(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


def test_a_move_that_fails_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith(".old"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, target)

    monkeypatch.setattr(artefact, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        write_sealed(folder, fill)
    assert damage(folder) is None


def test_what_a_kill_leaves_is_put_right(folder: Path) -> None:
    # Killed while writing, and between the two moves of a replacement.
    (folder.parent / ".x.abc").mkdir()
    (folder.parent / ".x.abc" / "half").touch()
    (folder.parent / ".y.abc").mkdir()
    folder.replace(folder.parent / ".x.def.old")
    clear_up(folder)
    assert damage(folder) is None
    assert sorted(path.name for path in folder.parent.iterdir()) == [".y.abc", "x"]


def test_an_old_folder_never_takes_the_place_of_the_new_one(folder: Path) -> None:
    write_folder_atomically(folder.parent / ".x.def.old", fill)
    clear_up(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["x"]
    assert is_sealed(folder)


def test_writers_of_the_same_folder_step_aside_for_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(20):
                write_sealed(tmp_path / "x", fill)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert damage(tmp_path / "x") is None
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_another_writer_has_taken_away_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sealed(tmp_path / "x", fill)
    move = artefact._move

    def and_taken_away(temporary: Path, path: Path, replaced: Path) -> None:
        move(temporary, path, replaced)
        path.replace(tmp_path / "theirs")

    monkeypatch.setattr(artefact, "_move", and_taken_away)
    write_sealed(tmp_path / "x", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_disk_trouble_is_told_from_other_errors() -> None:
    assert disk_trouble(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b")) == "No space left on device: /a/b"
    assert disk_trouble(RuntimeError("I/O error: No space left on device (os error 28)")) == "No space left on device"
    assert disk_trouble(OSError(errno.EROFS, os.strerror(errno.EROFS))) == "Read-only file system"
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert disk_trouble(ValueError("no")) is None


def test_only_text_may_have_the_line_ends_of_another_system(folder: Path) -> None:
    def fill_both(path: Path) -> None:
        for name in ("a.json", "b"):
            (path / name).write_text("1\n2\n")

    write_sealed(folder.parent / "y", fill_both)
    other = folder.parent / "y"
    for name in ("a.json", SUMS_FILE):
        (other / name).write_bytes((other / name).read_bytes().replace(b"\n", b"\r\n"))
    assert damage(other, line_ends=True) is None and damage(other) is not None
    (other / "b").write_bytes(b"1\r\n2\r\n")
    assert damage(other, line_ends=True) == "b is not as it was written"
    (other / "b").write_bytes(b"1\n2\n")
    (other / "a.json").write_bytes(b"1\r\n3\r\n")
    assert damage(other, line_ends=True) == "a.json is not as it was written"
    (other / "a.json").unlink()
    assert damage(other, line_ends=True) is not None
