"""The small matrix that the project's own gate is about: the study `ci` on official text and tasks.

    python -m tests.matrix FOLDER           # makes FOLDER/results/ci, then blesses results/baselines/ci.json from it

It needs the mirror (DISTILBENCH_MIRROR). The retrieval task is a cheap part of SciFact: its 300 test queries, which are
claims, against titles of abstracts, the 283 that are judged and 200 others. Whole abstracts would take minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

from distilbench.cli.app import main

BASELINE = Path(__file__).parents[1] / "results" / "baselines" / "ci.json"
RETRIEVAL, OTHERS = "SciFactTitles", 200
SENTENCES = 512


def overrides(mirror: Path, folder: Path) -> list[str]:
    """What makes the study `ci` the matrix; `folder` gets the retrieval task."""
    task = scifact_titles(mirror / "mteb" / "scifact", folder / RETRIEVAL)
    return [
        f'text={{source: "mirror:train/mixed-sentences.parquet", sentences: {SENTENCES}}}',
        f"budget.sentences={SENTENCES}",
        f"tasks=[STSBenchmark, {{{RETRIEVAL}: {{source: {task}}}}}]",
        "seeds=2",
    ]


def scifact_titles(whole: Path, folder: Path) -> Path:
    """Write the task, as a BEIR folder."""
    judged = pd.read_parquet(whole / "qrels" / "test.parquet")
    corpus = pd.read_parquet(whole / "corpus.parquet")
    is_judged = corpus["_id"].astype(str).isin(judged["corpus-id"].astype(str))
    kept = corpus[is_judged | ((~is_judged).cumsum() <= OTHERS)]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    judged.to_parquet(folder / "qrels" / "test.parquet", index=False)
    pd.read_parquet(whole / "queries.parquet").to_parquet(folder / "queries.parquet", index=False)
    titles = kept[["_id", "title"]].rename(columns={"title": "text"})
    titles.to_parquet(folder / "corpus.parquet", index=False)
    return folder


def bless_matrix(folder: Path) -> int:
    """Run the matrix and bless it."""
    mirror, baseline = Path(os.environ["DISTILBENCH_MIRROR"]).resolve(), str(BASELINE.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if code := main(["run", "ci", *overrides(mirror, Path.cwd())]):
        return code
    return main(["check", "results/ci", "--baseline", baseline, "--bless", "--drift"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    sys.exit(bless_matrix(parser.parse_args().folder))
