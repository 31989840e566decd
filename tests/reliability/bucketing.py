"""Do batches of sentences of like length cost quality? Train with them and with others, seed by seed.

    python -m tests.reliability.bucketing --sentences 12800 --seeds 5 --methods mse ckd    # needs DISTILBENCH_MIRROR
    python -m tests.reliability.bucketing --sentences 1024 --epochs 8 --against "one pool"

Prints, for each method, STS-B dev (x100) of both and the mean difference with its 95 % interval (Student's t), and the
share of padding in both.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import t

from distilbench.core.libraries import quiet_libraries
from distilbench.core.machine import Settings, cache_folder
from distilbench.data import batches
from distilbench.data.batches import BatchOrder
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.study.budget import Ledger
from distilbench.study.study_file import load_study
from distilbench.training.dev.response import Response
from distilbench.training.loop import train
from speed.training import job_of

OURS = "by length"
ORDERS = {
    "random": (1, batches.LEAST_POOLS),
    OURS: (batches.BATCHES_PER_POOL, batches.LEAST_POOLS),
    # All sentences sorted together: the same ones meet in every epoch.
    "one pool": (sys.maxsize, 1),
}
"""Batches in a pool, and pools in an epoch."""


def choose(order: str) -> None:
    batches.BATCHES_PER_POOL, batches.LEAST_POOLS = ORDERS[order]


def dev_score(inputs: Inputs, number: int, seed: int) -> float:
    """Spearman's correlation (x100) on the dev pairs after a training by one of the study's methods."""
    cell = replace(job_of(inputs, number), student=inputs.students.build(seed), seed=seed)
    response = Response(inputs.dev.dev_set if inputs.dev else None, inputs.budget, points=1)
    train(cell, Ledger(), response=response)
    return 100 * float(response.rows[-1]["score"])


def padding(inputs: Inputs, seed: int) -> float:
    """Share of an epoch's positions that hold no token."""
    lengths, size = inputs.text.corpus.lengths(), inputs.study.train.batch_size
    order = BatchOrder(lengths, size, seed)
    rows = [lengths[order[step]] for step in range(order.batches_in_epoch(0))]
    return 1 - sum(int(found.sum()) for found in rows) / sum(size * int(found.max()) for found in rows)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=12800)
    parser.add_argument("--text", help="sentences of your own, as text.source of a study")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--against", choices=sorted(ORDERS.keys() - {OURS}), default="random")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["mse", "ckd"])
    arguments = parser.parse_args()
    mirror = os.environ.get("DISTILBENCH_MIRROR")
    if not mirror:
        sys.exit("set DISTILBENCH_MIRROR")
    quiet_libraries()
    changes = [
        f"methods=[{', '.join(arguments.methods)}]",
        f"text.sentences={arguments.sentences}",
        f"budget.sentences={arguments.epochs * arguments.sentences}",
    ]
    changes += [f"text.source={arguments.text}"] if arguments.text else []
    study = load_study("minilm-50k", changes)
    inputs = make_inputs(study, Settings(Path("unused"), cache_folder(), Path(mirror), "cpu"))
    orders = (arguments.against, OURS)
    for number, entry in enumerate(study.methods):
        scores: dict[str, list[float]] = {name: [] for name in orders}
        for seed in range(1, arguments.seeds + 1):
            for name in orders:
                choose(name)
                scores[name].append(dev_score(inputs, number, seed))
                say(f"{entry.label} {seed} {name} {scores[name][-1]:.2f}")
        gain = np.subtract(scores[OURS], scores[arguments.against])
        half = t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
        means = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in scores.items())
        say(f"{entry.label}: {means}; {OURS} {gain.mean():+.2f} +- {half:.2f} (n = {len(gain)})")
    for name in orders:
        choose(name)
        say(f"padding, {name}: {100 * padding(inputs, seed=1):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
