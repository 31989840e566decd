"""What the files in a study's folder must hold before they may speak: the keys that readers stand on, and types."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from distilbench.core.stored_json import Stored

Status = Literal["completed", "diverged", "failed"]
Role = Literal["method", "floor", "ceiling", "reference"]
Currency = Literal["steps", "sentences", "tokens", "flops", "seconds"]
MAIN = "main_score"
CENTRED, MEAN_LENGTH = "centred_main_score", "mean_vector_length"
"""Beside a task's metrics by mteb: see `distilbench.evaluation.vectors.centred`."""
LEARNING_RATE = "learning_rate"
"""Among the hyperparameters of a row: its own, where it has one."""


class _TeacherShape(Stored):
    """A teacher. Of one that is known by its vectors alone, shapes are not stated."""

    name: str
    sha256: str
    output_width: int
    parameters: int | None = None


class _StudentShape(Stored):
    layers: int
    width: int
    output_width: int
    parameters: int


class _TextShape(Stored):
    source: str
    sentences: int
    sha256: str


class _BudgetShape(Stored):
    currency: Currency
    amount: float


class _LedgerShape(Stored):
    __pydantic_extra__: dict[str, float | None]
    steps: int
    sentences: int
    tuning_trials: int
    seconds: dict[str, float]


class _TaskShape(Stored):
    type: str
    main_metric: str
    data_sha256: str
    precision: str


class _EnvironmentShape(Stored):
    __pydantic_extra__: dict[str, str | int]
    mteb: str
    torch: str
    transformers: str
    platform: str
    cpu: str
    threads: int
    device: str
    tf32: bool | None = None
    """Of CUDA devices."""


class _PointShape(Stored):
    """A place in the course of a training."""

    __pydantic_extra__: dict[str, float | bool | None]
    share: float
    score: float | None


class _ContaminationShape(Stored):
    looked_at: int = 0
    equal: int = 0
    phrase: int = 0
    pairs_seen: dict[str, int] = Field(default_factory=dict)


class _VectorsShape(Stored):
    sentences: int
    values: dict[str, float] = Field(default_factory=dict)
    layers: list[list[float]] = Field(default_factory=list)
    asymmetric: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if len({len(row) for row in self.layers}) > 1:
            raise ValueError("the rows of layers differ in length")
        return self


class RecordShape(Stored):
    """All of a record's keys, and no others."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    study: str
    role: Role
    label: str
    method: str
    hyperparameters: dict[str, Any]
    status: Status
    seed: int
    teacher: _TeacherShape
    student: _StudentShape
    text: _TextShape
    train: dict[str, Any]
    budget: _BudgetShape
    ledger: _LedgerShape
    tasks: dict[str, _TaskShape]
    scores: dict[str, dict[str, float]]
    identity: dict[str, str]
    environment: _EnvironmentShape
    error: str | None = None
    response: list[_PointShape] = Field(default_factory=list)
    contamination: _ContaminationShape = Field(default_factory=_ContaminationShape)
    vectors: _VectorsShape | None = None
    speed: dict[str, float] = Field(default_factory=dict)
    limit: int | None = None
    schema_: int = Field(alias="schema")

    @field_validator("vectors", mode="before")
    @classmethod
    def _may_be_empty(cls, value: Any) -> Any:
        return None if value == {} else value

    @model_validator(mode="after")
    def _scored(self) -> Self:
        for task, metrics in self.scores.items():
            if task not in self.tasks:
                raise ValueError(f"scores: tasks says nothing of {task}")
            if MAIN not in metrics:
                raise ValueError(f"scores.{task}: {MAIN} is missing")
        currency = self.budget.currency
        if any(not isinstance((point.model_extra or {}).get(currency), int | float) for point in self.response):
            raise ValueError(f"response: a point does not say how many {currency} were spent")
        return self


class _CellShape(Stored):
    model_config = ConfigDict(extra="forbid")

    label: str
    levels: dict[str, str]


class _AblationShape(Stored):
    model_config = ConfigDict(extra="forbid")

    name: str
    design: Literal["leave-one-out", "one-at-a-time", "factorial"]
    factors: dict[str, list[str]]
    cells: list[_CellShape]
    apart: dict[str, list[str]]

    @model_validator(mode="after")
    def _of_its_factors(self) -> Self:
        for cell in self.cells:
            for factor, level in cell.levels.items():
                if level not in self.factors.get(factor, []):
                    raise ValueError(f"the cell of {cell.label} has a level of {factor} that is none of its levels")
        return self


class _SummedShape(Stored):
    model_config = ConfigDict(extra="forbid")

    schema_: int = Field(alias="schema")
    sha256: str


class AblationsShape(_SummedShape):
    """Of `ablations.json`."""

    ablations: list[_AblationShape]


class _BenchmarkShape(Stored):
    model_config = ConfigDict(extra="forbid")

    name: str
    tasks: list[str]
    left_out: dict[str, str]


class BenchmarksShape(_SummedShape):
    """Of `benchmarks.json`."""

    benchmarks: list[_BenchmarkShape]


class _TrialShape(Stored):
    model_config = ConfigDict(extra="forbid")

    hyperparameters: dict[str, Any]
    runs: list[str]
    score: float | None
    flops: float
    error: str | None = None


class _TunedShape(Stored):
    model_config = ConfigDict(extra="forbid")

    label: str
    tuned: str
    space: dict[str, Any]
    trials: list[_TrialShape]


class TuningShape(_SummedShape):
    """Of `tuning.json`."""

    trials: int = Field(ge=1)
    sampler: str
    seeds: list[int]
    dev: str
    optuna: str
    methods: list[_TunedShape]
