"""What a row would stumble over after hours is said before it is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench.runs import trial
from distilbench_methods.mse import MSE
from tests.conftest import Cli, Writes


@pytest.fixture(autouse=True)
def nothing_tried(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have tried does not count here."""
    monkeypatch.setattr(trial, "tried_folder", lambda cache: cache / "tried")


def fails_in_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(*_: Any) -> dict[str, torch.Tensor]:
        raise RuntimeError("sizes 3 and 4\nand more")

    monkeypatch.setattr(MSE, "loss", loss)


def fails_at_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MSE, "exported_head", lambda *_: nn.LayerNorm(16))


def is_another_when_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path) -> Encoder:
        model = load_encoder(folder)
        with torch.no_grad():
            next(model.parameters()).mul_(1.5)
        return model

    monkeypatch.setattr(trial, "load_encoder", load)


FAULTS = {
    "in the loss": (
        fails_in_the_loss,
        "method mse does not work with this teacher and student (RuntimeError: sizes 3 and 4)",
    ),
    "at export": (fails_at_export, "made of linear layers and activations, not of LayerNorm"),
    "after export": (is_another_when_exported, "method mse: the exported student gives other vectors"),
}


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("where", FAULTS)
def test_it_is_said_before_anything_is_planned(
    cli: Cli, study: Writes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, dry: bool
) -> None:
    breaks, expected = FAULTS[where]
    breaks(monkeypatch)
    more = ["--dry-run"] if dry else []
    code, out, errors = cli("run", study(), "--out", tmp_path / "results", "--device", "cpu", *more)
    assert (code, out) == (2, "")
    assert expected in errors
    assert [path for path in (tmp_path / "results").rglob("*") if path.is_file()] == []


def test_a_plan_keeps_nothing_of_it(cli: Cli, study: Writes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[str] = []

    def counted(text: Any, entry: Any) -> None:
        tried.append(entry.label)

    monkeypatch.setattr(trial, "_train_and_export", counted)
    for _ in range(2):
        assert cli("run", study(methods=["mse", "simcse"]), "--out", tmp_path / "results", "--dry-run")[0] == 0
    assert tried == ["mse", "simcse"] * 2
    assert (
        cli(
            "run",
            study(methods=["mse"], train={"batch_size": 8, "max_length": 64}),
            "--out",
            tmp_path / "r",
            "--dry-run",
        )[0]
        == 0
    )
    assert tried == [*["mse", "simcse"] * 2, "mse"]
