"""The same work in sentence-transformers: its trainer, its encoder, and mteb with its models."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distilbench.core.errors import UserError
from distilbench.core.seeds import preserved_rng
from distilbench_methods.base import Dims, Method, Signals
from speed.clock import Contestant, Work

NEEDED = ("sentence_transformers", "accelerate")


def check_installed() -> None:
    """Raise `UserError` where sentence-transformers, or what its trainer needs, is missing."""
    if missing := [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]:
        raise UserError(
            f"python bench/speed compares with sentence-transformers, and {' and '.join(missing)} is not installed; "
            "run: pip install 'distilbench[speed]'"
        )


@dataclass(frozen=True)
class RivalTraining:
    """One training in sentence-transformers: one epoch over the sentences, in batches of them."""

    folder: Path
    """The untrained student."""
    sentences: list[str]
    labels: NDArray[np.float32] | None
    """The teacher's vectors, [N, D]; None for losses that know no teacher, which get each sentence twice."""
    batch_size: int
    learning_rate: float
    max_length: int
    device: str
    normalize: bool
    """Whether unit vectors ship, and are trained."""
    seed: int
    """Of the first round."""

    def contestant(self, make_loss: Any, *, batch_sampler: Any = None, bf16: bool = False) -> Contestant:
        """`make_loss` of the model; the trainer's own batches unless a sampler of them is given, as its arguments take
        it. Rounds have seeds of their own."""

        def ready(number: int) -> Work:
            from sentence_transformers import SentenceTransformerTrainer

            model = self._model()
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                trainer = SentenceTransformerTrainer(
                    model=model,
                    args=self._arguments(batch_sampler, bf16, self.seed + number),
                    train_dataset=self._dataset(),
                    loss=make_loss(model),
                )

            def work() -> Any:
                # Even when told to be silent it prints a summary and a bar.
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    trainer.train()
                return model.eval()

            return work

        return ready

    def _model(self) -> Any:
        model = load(self.folder, self.device)
        model.max_seq_length = self.max_length
        if self.normalize:
            from sentence_transformers.sentence_transformer.modules import Normalize

            model.append(Normalize())
        return model

    def _dataset(self) -> Any:
        from datasets import Dataset

        if self.labels is None:
            return Dataset.from_dict({"anchor": self.sentences, "positive": self.sentences})
        return Dataset.from_dict({"sentence": self.sentences, "label": self.labels})

    def _arguments(self, batch_sampler: Any, bf16: bool, seed: int) -> Any:
        from sentence_transformers import SentenceTransformerTrainingArguments

        return SentenceTransformerTrainingArguments(
            output_dir=str(Path(tempfile.gettempdir()) / "distilbench-speed"),
            num_train_epochs=1,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=0.1,
            seed=seed,
            bf16=bf16,
            use_cpu=self.device == "cpu",
            **({} if batch_sampler is None else {"batch_sampler": batch_sampler}),
            dataloader_drop_last=True,
            # Not part of the work that is compared.
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )


def grouped_by_length(lengths: NDArray[np.integer[Any]]) -> Any:
    """A batch sampler for the trainer's arguments, with transformers' own length-grouped order inside."""
    from sentence_transformers import DefaultBatchSampler
    from transformers.trainer_pt_utils import LengthGroupedSampler

    def make(dataset: Any, batch_size: int, drop_last: bool, generator: Any = None, **_: Any) -> Any:
        order = LengthGroupedSampler(batch_size, lengths=lengths.tolist(), generator=generator)
        return DefaultBatchSampler(order, batch_size=batch_size, drop_last=drop_last)

    return make


def load(folder: Path, device: str) -> Any:
    """A model folder as a SentenceTransformer."""
    from sentence_transformers import SentenceTransformer

    # It tells of every model it loads.
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    return SentenceTransformer(str(folder), device=device)


def encode(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors by its own encoder, at its own batch size."""
    found: NDArray[np.float32] = model.encode(list(texts), show_progress_bar=False)
    return found


def plain_scores(model: Any, tasks: list[Any]) -> dict[str, float]:
    """Main scores of loaded mteb tasks by plain mteb, at its own batch size."""
    import mteb

    with preserved_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The task .* is superseded")
        result = mteb.evaluate(
            model,
            tasks,
            cache=None,
            overwrite_strategy="always",
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"show_progress_bar": False},
        )
    return {item.task_name: float(item.get_score()) for item in result.task_results}


def loss_of(method: Method, dims: Dims) -> Callable[[Any], Any]:
    """Its own loss where it has the same as the method, else the method in its trainer; made of a model."""
    from sentence_transformers.sentence_transformer import losses

    if method.name == "mse":
        same = dims.student_final == dims.teacher_final
        return lambda model: losses.MSELoss(model, projection_dim=None if same else dims.teacher_final)
    if method.name == "simcse":
        return lambda model: losses.MultipleNegativesRankingLoss(model)
    return lambda model: MethodLoss(model, method, dims)


class MethodLoss(nn.Module):
    """A method of ours in its trainer, for losses that it does not have."""

    def __init__(self, model: Any, method: Method, dims: Dims) -> None:
        super().__init__()
        self.model, self._method = model, method
        self.aux = method.build_aux(dims)
        # One epoch: no row comes twice, so any numbers that differ will do.
        self._rows = 0

    def forward(self, sentence_features: Any, labels: Tensor) -> Tensor:
        (features,) = sentence_features
        student_BS = self.model(features)["sentence_embedding"]
        index_B = torch.arange(self._rows, self._rows + len(labels), device=labels.device)
        signals = Signals(
            index_B=index_B, mask_BT=features["attention_mask"], student_BS=student_BS, teacher_final_BD=labels
        )
        loss = torch.stack(list(self._method.loss(signals, self.aux, 0.0).values())).sum()
        with torch.no_grad():
            self._method.after_step(signals, self.aux, 0.0)
        self._rows += len(labels)
        return loss
