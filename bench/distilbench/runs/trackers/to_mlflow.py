"""MLflow: the server of MLFLOW_TRACKING_URI, else a database in the trackers' folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilbench.runs.trackers.tracker import TrackedRun

DATABASE = "mlflow.db"
RUN_TAG = "distilbench-run-id"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that does not answer would hold a training up for many minutes by MLflow's own settings."""


class ToMlflow:
    """A tracker."""

    def __init__(self, run: TrackedRun) -> None:
        self._client, experiment = open_experiment(run.study, run.folder)
        for before in self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.id}'"):
            self._client.delete_run(before.info.run_id)
        tags = {RUN_TAG: run.id}
        self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        for name, value in run.settings.items():
            self._client.log_param(self._id, name, value)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def finish(self) -> None:
        self._client.set_terminated(self._id)


def open_experiment(study: str, folder: Path) -> tuple[Any, str]:
    """A client, and the id of the study's experiment, made if need be.

    Made before there are workers: processes that make a database at the same time get in each other's way.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    # It tells how it makes its tables.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{(folder / DATABASE).absolute()}"
    client = MlflowClient(tracking_uri=uri)
    there = client.get_experiment_by_name(study)
    return client, there.experiment_id if there is not None else client.create_experiment(study)
