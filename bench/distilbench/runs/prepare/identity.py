"""Who a run is: all that can change what it trains, and nothing else. A run's id is the hash of it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import distilbench_methods.base
from distilbench.core.hashes import PROTOCOL, file_sha256, key_of
from distilbench.data.batches import BATCHES_PER_POOL, batches_per_pool
from distilbench.runs.prepare.inputs import Inputs
from distilbench.study.rows import Stage
from distilbench.study.study import Run
from distilbench_methods.base import Method, Needs


def identity_of(inputs: Inputs, run: Run, stages: Sequence[tuple[Stage, Needs]]) -> dict[str, Any]:
    """JSON values by name. `stages`: the run's, with what each asks for."""
    study, device = inputs.study, inputs.settings.device
    parts: dict[str, Any] = {"protocol": PROTOCOL, "role": run.role, "teacher": inputs.teacher.hashes}
    if run.role == "ceiling":
        return parts
    if run.role == "reference":
        return parts | {"static": study.static.model_dump() if study.static else {}, "device": device}
    # Which folder a model lies in is no part of it.
    student = {**study.student.model_dump(exclude={"model"}), **inputs.students.hashes}
    parts |= {"student": student, "seed": run.seed, "device": device}
    if run.role == "floor":
        return parts
    parts |= {
        "method": run.entry.name,
        "code": [code_hashes(stage.build()) for stage, _ in stages],
        "hyperparameters": run.entry.hyperparameters,
        "budget": asdict(inputs.budget),
        "train": study.train.model_dump(),
    }
    if run.entry.tuning_trials:
        parts["tuning_trials"] = run.entry.tuning_trials
    if inputs.dev is not None and study.dev is not None:
        parts["dev"] = [inputs.dev.watched_key, study.dev.points]
    return parts | _texts(inputs, [needs for _, needs in stages])


def _texts(inputs: Inputs, needs: list[Needs]) -> dict[str, Any]:
    """The texts that are read, and how many batches of each are sorted by length together."""
    sources = {"labelled" if one.candidates else "text": inputs.source_of(one) for one in needs}
    parts: dict[str, Any] = {name: source.key for name, source in sources.items()}
    # What the teacher's signals are of, where it reads the text in its own way.
    parts |= {
        f"teacher_{name}": source.teacher_key for name, source in sources.items() if source.teacher_key != source.key
    }
    pools = {batches_per_pool(source.size, inputs.study.train.batch_size) for source in sources.values()}
    if pools != {BATCHES_PER_POOL}:
        parts["batches_per_pool"] = sorted(pools)
    return parts


def code_hashes(method: Method) -> list[str]:
    """Hash of the code of a method, and of each method that it is made of: runs of an edited method are other runs."""
    return [_code_hash(type(method)), *(code for part in method.parts() for code in code_hashes(part))]


def _code_hash(method: type[Method]) -> str:
    """Of the method's own file and of those it imports from its package."""
    own = sys.modules[method.__module__]
    package = own.__name__.rpartition(".")[0] or own.__name__
    near = (f"{package}.", "distilbench_methods.")
    modules, open_ends = {distilbench_methods.base.__name__: distilbench_methods.base}, [own]
    while open_ends:
        module = open_ends.pop()
        modules[module.__name__] = module
        names = {getattr(value, "__module__", None) for value in vars(module).values()}
        used = {name for name in names if isinstance(name, str) and f"{name}.".startswith(near)}
        open_ends += [sys.modules[name] for name in used - modules.keys()]
    return key_of(files={name: file_sha256(Path(inspect.getfile(module))) for name, module in modules.items()})
