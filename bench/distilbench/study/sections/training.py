"""How a study trains, tunes and scores, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, model_validator

from distilbench.records.schema import Currency
from distilbench.study.sections.section import PositiveInt, Section

Compile = Literal["default", "reduce-overhead", "max-autotune"]
"""Modes of `torch.compile`, by torch's names. The latter two record CUDA graphs where the student is on a GPU."""
Precision = Literal["fp32", "bf16"]
AnyPrecision = Literal["auto", "fp32", "bf16"]
"""`auto` until a study meets a machine: see `distilbench.runs.prepare.precision`."""


def known(precision: AnyPrecision) -> Precision:
    """A precision of a study that has met a machine, after which none is `auto`."""
    assert precision != "auto", "inputs are made from resolved studies"
    return precision


HeadStart = Literal["isometry", "torch", "released"]
RowType = Literal["float32", "float16", "int8"]
"""How the teacher's stored signals are kept."""


LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _rising(rates: tuple[float, float]) -> tuple[float, float]:
    if rates[0] >= rates[1]:
        raise ValueError(f"give the lowest learning rate first and a higher one second, got {rates[0]:g}, {rates[1]:g}")
    return rates


LearningRates = Annotated[tuple[LearningRate, LearningRate], AfterValidator(_rising)]


class BudgetSpec(Section):
    """What every method may spend: exactly one currency binds."""

    steps: PositiveInt | None = None
    """Updates of the student's weights."""
    sentences: PositiveInt | None = None
    """Sentences drawn from the text, each counted once however many views a method takes of it."""
    tokens: PositiveInt | None = None
    """Tokens of these sentences, padding not counted."""
    flops: Annotated[float, Field(gt=0)] | None = None
    """FLOPs of the student, forward and backward, of the method's own products, and of the teacher where a method runs
    it in training; padding is counted."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds of training, without set-up, the teacher's stored signals and scoring."""

    @model_validator(mode="after")
    def _one_currency(self) -> BudgetSpec:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of steps, sentences, tokens, flops, seconds")
        return self

    @property
    def currency(self) -> Currency:
        return cast(Currency, next(iter(self.model_dump(exclude_none=True))))

    @property
    def amount(self) -> float:
        return cast(float, getattr(self, self.currency))


class TrainSpec(Section):
    """What all methods of a study share; a row may change the learning rate alone."""

    batch_size: Annotated[int, Field(ge=2, le=2**20)] = 64
    """Rows of a step: sentences, or anchors with their candidates."""
    batch_tokens: PositiveInt | None = None
    """Rows of a step are as many as fit in this many tokens when padded to the longest of them (of anchors with
    candidates, the longest text of each row counts); at most `batch_size`, at least two. Unset: always `batch_size`."""
    micro_batch: PositiveInt | None = None
    """Pass the student this many rows at a time, for batches that do not fit in memory. The loss still sees the whole
    batch (gradient caching, Gao et al. 2021, arXiv:2101.06983); the price is one more forward pass."""
    head_start: HeadStart = "isometry"
    """How the linear layers of all heads start, those of every method alike. `isometry`: as a map that keeps angles,
    the identity where widths agree, so that a head which is dropped at export hides as little as it can of what is
    learnt; `torch`: torch's default; `released`: as in the released code of each method (`methods/README.md`)."""
    learning_rate: LearningRate = 2e-3
    """AdamW's highest learning rate. A row may have its own, `ibkd: {learning_rate: 0.0002}`, and is marked."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the budget over which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients of all that is trained are scaled down to this norm where theirs is larger."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens per training sentence; longer ones are cut, for teacher and student alike."""
    precision: AnyPrecision = "auto"
    """Arithmetic of training. `bf16`: autocast; weights and optimiser stay in fp32. `auto`: bf16 where a product of two
    matrices is at least 1.3 times as fast in it as in fp32, measured once for each device; `DISTILBENCH_PRECISION`,
    where it is set, says instead what `auto` is. Runs and reports state what it was."""
    compile: Compile | None = None
    """Run the student's blocks through `torch.compile`, in this mode, while it is trained. Unset: not
    compiled. Compiling takes a minute or more before the first step; results then differ in the last bits, and on a
    GPU dropout draws other masks."""
    signals: RowType = "float32"
    """How the teacher's vectors of the text are stored. `float32`: as computed; `float16` and `int8` take a half and a
    quarter of the disk (`BENCHMARKS.md` has what they cost in quality)."""
    checkpoint: Literal["last", "best-on-dev"] = "last"
    """Which weights are exported and scored: those at the end of the budget, or those with the best score on `dev`
    (of a recipe, within its last stage)."""


class EvaluationSpec(Section):
    """How models are scored once they are trained, the teacher included."""

    precision: AnyPrecision = "auto"
    """`bf16`: of the transformer's weights and activations; pooling, heads and similarities stay in fp32. It changes
    scores in the fourth digit (`BENCHMARKS.md` has by how much). `auto` is what it is for `train.precision`."""


class AblateSpec(Section):
    """Cells that differ from one row in some factors: a method's hyperparameters, or settings of the study."""

    of: Any = None
    """The row that is taken apart, as in `methods`. Unset: the method by whose name the ablation goes."""
    design: Literal["leave-one-out", "one-at-a-time", "factorial"] = "one-at-a-time"
    """`leave-one-out`: each factor at the value that switches it off, the others as they are; `one-at-a-time`: each
    factor at each of its levels, the others as they are; `factorial`: all combinations, first levels for reference."""
    factors: Annotated[dict[str, Any], Field(min_length=1)]
    """Hyperparameter (`stage.hyperparameter` of a recipe), or `student.layers`, `text.sentences`, `train.batch_size`
    and the like -> a level or a list of them; or any name -> named levels, each a mapping of such keys to values."""


class TuneSpec(Section):
    """Equal tuning: as many trials for each method, each a training with settings from the method's search space."""

    trials: Annotated[int, Field(ge=2, le=1000)]
    """How many settings are tried for each row."""
    sampler: Literal["quasi-random", "tpe"] = "quasi-random"
    """`quasi-random`: scrambled Sobol points; `tpe`: later trials are drawn to where earlier ones did well."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(default=[0])
    """Seeds of the trials. Each setting is trained once with each; the final runs must have others."""
    learning_rate: LearningRates | None = (3e-5, 3e-3)
    """Lowest and highest learning rate of the trials, drawn on a logarithmic scale: the same span for every row that
    sets none of its own. `null`: the study's, for all. The lowest is SimCSE's released rate, the highest a hundred
    times that."""
    methods: list[str] | None = None
    """Labels of the rows to tune. Unset: all; otherwise the study is marked as tuned unequally."""
