"""A user's script: `make types` checks it as strictly as a user may, and test_api runs it."""

from __future__ import annotations

from typing import assert_type

import pandas as pd
from matplotlib.figure import Figure

import distilbench as db


def script(source: str, baseline: str) -> str:
    """Run a study from a file and the same from Python; compare, draw, check."""
    study = db.load_study(source, "budget.steps=2", methods=["mse"], seeds=1)
    assert_type(study, db.Study)
    results = db.run(study, out="typed", progress=False)
    assert_type(results, db.Results)
    assert_type(results.scores, pd.DataFrame)
    assert_type(results.compare(reference="mse"), pd.DataFrame)
    assert_type(results.plot("scores"), Figure)
    assert_type(db.check(results, baseline).exit_code, int)
    failed = [outcome.explanation for outcome in db.conform("mse", metric="l2") if outcome.status == "failed"]
    assert_type(failed, list[str])
    same = db.Study(
        name=study.name,
        teacher=study.teacher,
        student={"layers": 2, "width": 16},
        text={"source": study.text.source},
        budget={"steps": 2},
        methods=["mse"],
        seeds=1,
        tasks=["DistilbenchSTS"],
        train={"batch_size": 16, "max_length": 64},
    )
    again = db.run(same, out="typed", progress=False)
    assert failed == [] and list(again.runs["run_id"]) == list(results.runs["run_id"])
    try:
        return str(db.nothing)  # type: ignore[attr-defined]
    except AttributeError as error:
        return str(error)
