"""Training, ours and theirs: from sentences and the teacher's vectors to a trained student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilbench.data.corpus import write_corpus
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.tasks.files import read_table
from distilbench.models.embed import embed
from distilbench.models.encoder import Encoder
from distilbench.runs.prepare.inputs import Inputs
from distilbench.runs.prepare.prepared import PreparedRun, prepare
from distilbench.study.budget import Budget, Ledger
from distilbench.study.sections.training import Compile
from distilbench.training.job import TrainingJob
from distilbench.training.loop import train
from distilbench.training.stores.teacher_store import FINAL
from speed import rival
from speed.clock import Contestant, Race, Work, race
from speed.setting import SEED, Setting

OURS, DEFAULTS, BEST = "distilbench", "its defaults", "its best settings"
PLAIN = "not compiled"
WARM_UP_BATCHES = 2
METHODS: dict[str, Any] = {
    "mse": "mse",
    # Without a head, as its loss has none.
    "simcse": {"simcse": {"head": "none"}},
    "ckd": "ckd",
}


def method_runs(inputs: Inputs) -> list[PreparedRun]:
    """The runs that train, those of the first seed in the order of the methods."""
    (runs,) = prepare([inputs])
    return [run for run in runs if run.cell.role == "method"]


def job_of(inputs: Inputs, number: int = 0, *, steps: int | None = None, seed: int = SEED) -> TrainingJob:
    """The training by one of a study's methods, with the teacher's signals in the store."""
    run = method_runs(inputs)[number]
    (prepared,) = run.stages
    store = run.store(prepared)
    store.ensure(np.arange(len(inputs.text.corpus)))
    return TrainingJob(
        method=prepared.stage.build(),
        student=inputs.students.build(SEED),
        teacher=inputs.teacher.encoder,
        text=run.text(prepared),
        store=store,
        spec=inputs.study.train,
        budget=inputs.budget if steps is None else Budget("steps", steps),
        seed=seed,
    )


def compare(setting: Setting, method: str) -> Race:
    """Train the same student on the same sentences by the same loss; a round that is not counted warms up.

    Each round has a seed of its own, for the order of the sentences and for dropout.
    """
    small = setting.first(WARM_UP_BATCHES * setting.options.batch_size)
    race(contestants(small, method), 1)
    return race(contestants(setting, method), setting.options.rounds)


def contestants(setting: Setting, method: str) -> dict[str, Contestant]:
    """Ours, theirs with defaults, theirs with batches grouped by length and in the better precision."""
    inputs = setting.inputs([METHODS[method]])
    theirs, make_loss = rival_of(setting, inputs, method)
    return {
        OURS: _ours(setting, inputs),
        DEFAULTS: theirs.contestant(make_loss),
        BEST: theirs.contestant(make_loss, **best_settings(setting, inputs)),
    }


def best_settings(setting: Setting, inputs: Inputs) -> dict[str, Any]:
    """What its documentation advises for speed: batches grouped by length, and bf16 where that pays."""
    grouped = rival.grouped_by_length(inputs.text.corpus.lengths())
    return {"batch_sampler": grouped, "bf16": setting.options.precision == "bf16"}


def compare_compiled(setting: Setting, how: Compile) -> tuple[Race, float]:
    """MSE with the student's blocks compiled and without; and seconds of the first training, which compiles."""
    small = setting.first(WARM_UP_BATCHES * setting.options.batch_size)
    first = race({OURS: _compiled(small, how)}, 1)
    return race({OURS: _compiled(setting, how), PLAIN: _compiled(setting, None)}, setting.options.rounds), first.median(
        OURS
    )


def _compiled(setting: Setting, how: Compile | None) -> Contestant:
    inputs = setting.inputs([METHODS["mse"]])

    def ready(number: int) -> Work:
        job = job_of(inputs, seed=SEED + number)
        job = replace(job, spec=job.spec.model_copy(update={"compile": how}))
        return lambda: train(job, Ledger())

    return ready


def rival_of(setting: Setting, inputs: Inputs, method: str) -> tuple[rival.RivalTraining, Any]:
    """The same training in sentence-transformers, and what makes its loss of a model."""
    store = job_of(inputs).store
    labels = None if method == "simcse" else store.read(FINAL, np.arange(len(inputs.text.corpus))).numpy()
    training = rival.RivalTraining(
        folder=setting.student_folder,
        sentences=setting.sentences,
        labels=labels,
        batch_size=setting.options.batch_size,
        learning_rate=setting.options.learning_rate,
        max_length=setting.max_length,
        device=setting.device,
        normalize=method == "mse",
        seed=SEED,
    )
    (entry,) = inputs.study.methods
    return training, rival.loss_of(entry.stages[0].build(), inputs.dims)


def _ours(setting: Setting, inputs: Inputs) -> Contestant:
    """Tokenising included, since theirs does it while it trains."""
    tokenizer, length = load_tokenizer(setting.teacher.folder), setting.max_length

    def ready(number: int) -> Work:
        job = job_of(inputs, seed=SEED + number)

        def work() -> Encoder:
            with TemporaryDirectory() as folder:
                write_corpus(Path(folder), setting.sentences, tokenizer, length)
            train(job, Ledger())
            return job.student

        return work

    return ready


def dev_scores(setting: Setting, found: Race) -> dict[str, list[float]] | None:
    """Spearman's correlation on STS-B dev (x100) of each contestant's students, by rounds; None without the mirror."""
    if setting.settings.mirror is None or setting.options.shape is not None:
        return None
    from scipy.stats import spearmanr

    pairs = read_table(setting.settings.mirror / "mteb" / "stsbenchmark-sts" / "validation.parquet")
    texts = [*pairs["sentence1"], *pairs["sentence2"]]
    tokenizer = load_tokenizer(setting.teacher.folder)

    def score(model: Any) -> float:
        return 100 * float(spearmanr(_cosines(_vectors(model, tokenizer, texts)), pairs["score"]).statistic)

    return {name: [score(model) for model in trained] for name, trained in found.gave.items()}


def _vectors(model: Any, tokenizer: Any, texts: list[str]) -> NDArray[np.float32]:
    return embed(model, tokenizer, texts) if isinstance(model, Encoder) else rival.encode(model, texts)


def _cosines(vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
    units_NE = vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)
    first, second = np.split(units_NE, 2)
    cosines: NDArray[np.float32] = (first * second).sum(axis=1)
    return cosines
