"""Search spaces of a study's rows, and the settings that are drawn from them: one after the other, always the same."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, cast

import distilbench_methods
from distilbench.records.schema import LEARNING_RATE
from distilbench.study.rows import MethodEntry, Stage
from distilbench.study.sections.training import TuneSpec
from distilbench.study.study import Study
from distilbench_methods.space import Choice, Span

Space = Mapping[str, Span | Choice]
RANDOM_FIRST = 0.25
"""Share of the trials that tpe draws at random before it learns from them; never fewer than `LEAST_RANDOM`."""
LEAST_RANDOM = 4


def space_of(entry: MethodEntry, spec: TuneSpec) -> dict[str, Span | Choice]:
    """What of a row may be tuned (`stage.name` for recipes): the learning rate, and what its methods declare.

    What the row sets itself is left out.
    """
    space: dict[str, Span | Choice] = {}
    for stage in entry.stages:
        own = {
            name: values
            for name, values in distilbench_methods.load(stage.name).search_space.items()
            if stage.hyperparameters[name] == _default(stage, name)
        }
        if spec.learning_rate is not None and stage.learning_rate is None:
            own[LEARNING_RATE] = Span(*spec.learning_rate, log=True)
        space |= {name if len(entry.stages) == 1 else f"{stage.name}.{name}": values for name, values in own.items()}
    return space


def _default(stage: Stage, name: str) -> Any:
    (item,) = (
        item for item in dataclasses.fields(cast(Any, distilbench_methods.load(stage.name))) if item.name == name
    )
    return item.default


def rows_to_tune(study: Study) -> list[MethodEntry]:
    """The rows that a study asks to tune."""
    wanted = study.tune.methods if study.tune else []
    return [entry for entry in study.methods if wanted is None or entry.label in wanted]


def check_spaces(study: Study) -> None:
    """Raise `ValueError` for a row to be tuned that leaves nothing to be tuned."""
    if study.tune is None:
        return
    for entry in rows_to_tune(study):
        names = [stage.name for stage in entry.stages]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"tune: the recipe {entry.label} has {repeated[0]} twice, and could not be tuned apart")
        if not space_of(entry, study.tune):
            raise ValueError(
                f"tune: {entry.label} has nothing to tune: its method declares no `search_space`, or the row sets all "
                "of it; give tune.learning_rate, or name the rows to tune in tune.methods"
            )


class Sampler:
    """Draws settings from a search space; equal spaces, seeds and scores give equal settings."""

    def __init__(self, space: Space, spec: TuneSpec, seed: int = 0) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._unit = space, spec.sampler == "quasi-random"
        sampler: optuna.samplers.BaseSampler
        if self._unit:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler = optuna.samplers.QMCSampler(
                    scramble=True,
                    seed=seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed),
                    warn_independent_sampling=False,
                )
        else:
            first = max(LEAST_RANDOM, round(RANDOM_FIRST * spec.trials))
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions = {name: self._distribution(values) for name, values in space.items()}

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A trial to be told of, and its settings."""
        trial = self._study.ask(self._distributions)
        if not self._unit:
            chosen = {name: trial.params[name] for name in self._space}
            places = {name: v for name, v in self._space.items() if isinstance(v, Choice)}
            return trial, {**chosen, **{name: v.values[chosen[name]] for name, v in places.items()}}
        return trial, {name: at(values, trial.params[name]) for name, values in self._space.items()}

    def tell(self, trial: Any, score: float | None) -> None:
        """Say how a trial did; None for one that failed."""
        import optuna

        if score is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    def _distribution(self, values: Span | Choice) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        # Quasi-random points fill a cube evenly, choices included; those of tpe keep the kind of each hyperparameter.
        if self._unit:
            return FloatDistribution(0.0, 1.0)
        if isinstance(values, Choice):
            return CategoricalDistribution(range(len(values.values)))
        if values.whole:
            return IntDistribution(int(values.low), int(values.high), log=values.log)
        return FloatDistribution(values.low, values.high, log=values.log)


def at(values: Span | Choice, share: float) -> Any:
    """What lies at a share in [0, 1] of the way through a range or a choice."""
    if isinstance(values, Choice):
        return values.values[min(int(share * len(values.values)), len(values.values) - 1)]
    if values.log:
        value = values.low * (values.high / values.low) ** share
    else:
        value = values.low + share * (values.high - values.low)
    return round(value) if values.whole else float(value)
