"""Texts that would be streamed from the Hub and fill the memory: refused by their size, or as they are gone through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.data import bombs
from tests.data.fake_hub import COMMIT, fake_hub

SET = "org/set"
GIGABYTE = 2**30
READ = """
import json, sys
from distilbench.core.errors import UserError
from distilbench.data.labelled import _read
from distilbench.data.text import read_sentences, source_key
from distilbench.study.budget import peak_resident_bytes
from distilbench.study.sections.texts import LabelledSpec, TextSpec

said = {}
for name in sys.argv[1:]:
    try:
        if name.startswith("pairs"):
            spec = LabelledSpec(source=f"hf://datasets/org/set/{name}", columns=["anchor", "positive"])
            _read(spec, None, "labelled")
            continue
        spec = TextSpec(source=f"hf://datasets/org/set/{name}", on_bad_line="skip")
        source_key(spec, None)
        said[name] = list(read_sentences(spec, None))
    except UserError as error:
        said[name] = str(error)
print(json.dumps([said, peak_resident_bytes()]))
"""


def read(folder: Path, names: list[str], claimed: dict[str, int]) -> tuple[dict[str, object], int, list[str]]:
    """What a process says of some files of the Hub, its most memory in bytes, and what the Hub was asked for."""
    with fake_hub(folder, SET, claimed) as (address, asked):
        home = str(folder.parent / "home")
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": home, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", READ, *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout.splitlines()[-1])
    return said, peak, asked


def test_what_is_too_large_on_the_hub_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "given-out"
    folder.mkdir()
    table = pd.DataFrame({"text": ["one", "two"]})
    table.to_csv(folder / "huge.csv", index=False)
    table.to_csv(folder / "fine.csv.gz", index=False)
    table.to_parquet(folder / "huge.parquet")
    table.to_parquet(folder / "fine.parquet")
    claimed = {"huge.csv": 2**29 + 1, "huge.parquet": 2**34 + 1}
    said, _, asked = read(folder, ["huge.csv", "huge.parquet", "fine.csv.gz", "fine.parquet"], claimed)
    assert said.pop("fine.csv.gz") == said.pop("fine.parquet") == ["one", "two"]
    for name, most in (("huge.csv", 2**29), ("huge.parquet", 2**34)):
        source = f"hf://datasets/{SET}"
        assert said[name] == (
            f"text.source: {source}/{name} has {most + 1} bytes on the Hub, and at most {most} are read from there; "
            f"name some of its files as {source}/FILE, or run distilbench prefetch and give what it fills as "
            "--mirror DIR"
        )
        assert f"GET /datasets/{SET}/resolve/{COMMIT}/{name}" not in asked
    assert f"GET /datasets/{SET}/resolve/{COMMIT}/fine.parquet" in asked


def test_text_on_the_hub_is_refused_as_it_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "given-out"
    folder.mkdir()
    beginnings = {"csv": b"text,label\nfine,1\n", "jsonl": b'{"text": "fine"}\n', "txt": b"fine\n"}
    for kind, first in beginnings.items():
        for ending in (".gz", ".bz2"):
            bombs.packed(folder / f"long.{kind}{ending}", first)
    names = sorted(path.name for path in folder.iterdir())
    said, peak, _ = read(folder, names, {})
    for name in names:
        assert f"hf://datasets/{SET}/{name} cannot be read from the Hub: {name} " in str(said[name]), said[name]
        assert "is longer than" in str(said[name]) and str(said[name]).endswith("; break it up, or take it out")
    assert peak < GIGABYTE, peak


def test_pairs_of_the_hub_that_memory_does_not_hold_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "given-out"
    folder.mkdir()
    bombs.repeated_cell(folder / "pairs.parquet", ["anchor", "positive"])
    said, peak, _ = read(folder, ["pairs.parquet"], {})
    assert "unpacks to more than" in str(said["pairs.parquet"]) and "half of this machine's memory" in str(said)
    assert peak < GIGABYTE, peak
