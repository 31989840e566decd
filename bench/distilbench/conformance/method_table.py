"""The table of all methods in the docs, made from the methods themselves: `distilbench methods --markdown`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

import distilbench_methods
from distilbench.core.seeds import seeded
from distilbench.models.encoder import num_parameters
from distilbench.study.method_catalogue import describe_method
from distilbench_methods.base import Dims, Method, ModelDims, Needs

REFERENCE = Dims(
    student=ModelDims(width=192, layers=2, heads=12),
    teacher=ModelDims(width=384, layers=6, heads=12),
    student_final=192,
    teacher_final=384,
    vocabulary=30_522,
    num_sentences=50_000,
    shared_tokens=True,
)
BATCH, TOKENS = 64, 24
FEED_FORWARD = 4
"""Width of the feed-forward layers, in widths of the model."""
HEADS = {"torch": "torch", "normal": "N(0, 0.02)"}
HEADER = """\
# The methods

Made from the code by `distilbench methods --markdown`; do not edit. Costs are for a student of 2 x 192, a teacher of
6 x 384, a text of 50 000 sentences and batches of 64 rows of 24 tokens, with default hyperparameters.

- *teacher*: signals read from the store, or **online**: the teacher has to run on every batch.
- *passes*: sentences that go through the student for each row of the batch.
- *state*: what the method remembers between steps (banks, queues).
- *parameters*: trained with the student and dropped at export; those that ship are named apart.
- *heads*: how their linear layers start in the released code, for studies with `train.head_start: released`.
- *cost*: the method's own operations, and an online teacher's, in percent of the student's for one pass.
- *negatives*: texts that each anchor is contrasted with in a step.
"""


def markdown() -> str:
    """The whole page."""
    names = [*distilbench_methods.registry(), *distilbench_methods.VARIANTS]
    rows = [_row(name) for name in names]
    table = [" | ".join(["", *rows[0], ""]).strip(), " | ".join(["", *("---" for _ in rows[0]), ""]).strip()]
    table += [" | ".join(["", *row.values(), ""]).strip() for row in rows]
    return "\n".join([HEADER, *table, "", *_notes(), ""])


def _row(name: str) -> dict[str, str]:
    base, settings = distilbench_methods.VARIANTS.get(name, (name, {}))
    method = distilbench_methods.load(base)(**settings)
    needs = method.needs(REFERENCE)
    with seeded(0):
        aux = method.build_aux(REFERENCE)
    dropped, shipped = _parameters(method, aux)
    return {
        "method": f"`{name}`",
        "teacher": _teacher(needs),
        "student": _student(needs),
        "batch": needs.batch_kind,
        "passes": str(needs.student_views + needs.masked_tokens + needs.candidates),
        "state": _size(sum(buffer.nbytes for buffer in aux.buffers())),
        "parameters": f"{dropped:,}" + (f" (+ {shipped:,} shipped)" if shipped else ""),
        "heads": HEADS[method.released_head_start] if _has_linear(aux) else "-",
        "cost": f"{100 * _cost(method, needs):.1f} %",
        "negatives": str(method.negatives_per_step(BATCH) or "-"),
    }


def _has_linear(aux: nn.ModuleDict) -> bool:
    return any(isinstance(module, nn.Linear) for module in aux.modules())


def _parameters(method: Method, aux: nn.ModuleDict) -> tuple[int, int]:
    head = method.exported_head(aux)
    shipped = 0 if head is None else num_parameters(head)
    return num_parameters(aux) - shipped, shipped


def _teacher(needs: Needs) -> str:
    stored = {
        "final vector": needs.teacher_final,
        f"{_listed(needs.teacher_layers)} ({needs.layer_pooling})": needs.teacher_layers,
        f"{needs.teacher_rows} further vectors": needs.teacher_rows,
        "vectors of the negatives": needs.teacher_negatives,
        "scores": needs.teacher_scores,
        "vectors of the candidates": needs.teacher_candidates,
        "principal components": needs.fit_rows,
    }
    online = {
        "attention": needs.teacher_attention,
        "attention scores": needs.teacher_attention_scores,
        "token states": needs.teacher_hidden,
        "queries, keys, values": needs.teacher_qkv,
    }
    found = [name for name, wanted in stored.items() if wanted]
    found += [f"**online** {name}" for name, wanted in online.items() if wanted]
    return ", ".join(found) or "none"


def _student(needs: Needs) -> str:
    parts: dict[str, Any] = {
        _listed(needs.student_layers): needs.student_layers,
        "attention": needs.student_attention,
        "attention scores": needs.student_attention_scores,
        "token states": needs.student_hidden,
        "queries, keys, values": needs.student_qkv,
        "two dropout views": needs.student_views == 2,
        "masked copy": needs.masked_tokens,
    }
    return ", ".join(["final vector", *(name for name, wanted in parts.items() if wanted)])


def _listed(layers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, layers)) if len(layers) < 4 else f"{layers[0]}-{layers[-1]}"
    return f"layer {shown}" if len(layers) == 1 else f"layers {shown}"


def _size(count: int) -> str:
    return "-" if count < 100 else f"{count / 1e6:.2g} MB" if count >= 1e5 else f"{count / 1e3:.2g} kB"


def _cost(method: Method, needs: Needs) -> float:
    """The method's operations and those of an online teacher over the student's forward and backward, one pass."""
    own = method.extra_flops(REFERENCE, BATCH, TOKENS)
    teacher = _forward_flops(REFERENCE.teacher_model) if needs.teacher_online else 0.0
    return (own + teacher) / (3 * _forward_flops(REFERENCE.student))


def _forward_flops(dims: ModelDims) -> float:
    tokens = BATCH * TOKENS
    projections = (8 + 4 * FEED_FORWARD) * tokens * dims.width**2
    return dims.layers * (projections + 4.0 * tokens * TOKENS * dims.width)


def _notes() -> Iterator[str]:
    for name in distilbench_methods.registry():
        entry = describe_method(name)
        yield f"## {name}\n\n{entry.summary}\n\n*Source.* {entry.source}\n"
        if entry.unverified:
            yield f"*Unverified.* {entry.unverified}\n"
        variants = [
            f"`{variant}` ({', '.join(f'{key}: {value}' for key, value in settings.items())})"
            for variant, (base, settings) in distilbench_methods.VARIANTS.items()
            if base == name
        ]
        if variants:
            yield f"*Variants.* {', '.join(variants)}\n"
