"""What is compared: one file per method. This package imports torch and itself, nothing from the bench.

Registering a method is one line below; other packages register theirs through the entry-point group
`distilbench.methods`, scripts and notebooks with `register`. Looking up names imports neither torch nor the methods.
"""

from __future__ import annotations

import sys
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilbench_methods.base import Method

ENTRY_POINT_GROUP = "distilbench.methods"

BUILT_IN = {
    "mse": "distilbench_methods.mse:MSE",
    "hpd": "distilbench_methods.hpd:HPD",
    "jasper": "distilbench_methods.jasper:Jasper",
    "simcse": "distilbench_methods.simcse:SimCSE",
    "simcse-supervised": "distilbench_methods.simcse_supervised:SupervisedSimCSE",
    "ibkd": "distilbench_methods.ibkd:IBKD",
    "ibkd-supervised": "distilbench_methods.ibkd_supervised:SupervisedIBKD",
    "ckd": "distilbench_methods.ckd:CKD",
    "crd": "distilbench_methods.crd:CRD",
    "codir": "distilbench_methods.codir:CoDIR",
    "codir-code": "distilbench_methods.codir_code:CoDIRCode",
    "internal-kd": "distilbench_methods.internal_kd:InternalKD",
    "tinybert": "distilbench_methods.tinybert:TinyBERT",
    "minilm": "distilbench_methods.minilm:MiniLM",
    "rkd": "distilbench_methods.rkd:RKD",
    "sp": "distilbench_methods.sp:SP",
    "simdist": "distilbench_methods.simdist:SimDist",
    "rankcse": "distilbench_methods.rankcse:RankCSE",
    "margin-mse": "distilbench_methods.margin_mse:MarginMSE",
    "distill-kl": "distilbench_methods.distill_kl:DistillKL",
    "dual-supervision": "distilbench_methods.dual_supervision:DualSupervision",
    "embed-distill": "distilbench_methods.embed_distill:EmbedDistill",
    "match-nce-gor": "distilbench_methods.match_nce_gor:MatchNCEGOR",
    "matryoshka": "distilbench_methods.matryoshka:Matryoshka",
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("mse", {"metric": "cosine"}),
    "mse-pca": ("mse", {"projection": "teacher-pca"}),
    "leaf": ("mse", {"metric": "squared", "projection": "shipped"}),
    "ibkd-median": ("ibkd", {"gamma": "median"}),
    "ibkd-nce": ("ibkd", {"hsic_weight": 0.0}),
    "codir-paper": ("codir", {"layer_map": "all"}),
    "internal-kd-pid": ("internal-kd", {"procedure": "pid"}),
    "internal-kd-sid": ("internal-kd", {"procedure": "sid"}),
    "listnet": ("simdist", {"form": "listnet"}),
    "simcse-mlm": ("simcse", {"mlm_weight": 0.1}),
    "embeddinggemma": ("match-nce-gor", {"hardness": 5.0, "match_negatives": True, "matching_weight": 1.0}),
}
"""Settings of a method that have a name of their own in the field: name -> (method, hyperparameters)."""

_registered: dict[str, str] = {}


def register(method: type[Method]) -> None:
    """Add a class to the registry of this process.

    Raises `ValueError` for what is no method, for a class that is not in a file that can be imported, and for a name
    that another class has.
    """
    value = f"{method.__module__}:{method.__qualname__}"
    name = getattr(method, "name", method.__name__)
    _checked(name, value, method)
    if getattr(sys.modules.get(method.__module__), "__file__", None) is None or "." in method.__qualname__:
        raise ValueError(
            f"the method {name} is not in a file of its own, by which its runs are known again; write the class to a "
            "file, such as my_loss.py (in a notebook with %%writefile my_loss.py), and import it from there"
        )
    if (taken := registry().get(name, value)) != value:
        raise ValueError(f"the method name {name!r} is taken by {taken}; give the class another name")
    _registered[name] = value


def registered() -> frozenset[str]:
    """Names of methods that only this process knows."""
    return frozenset(_registered)


@cache
def plug_ins() -> tuple[EntryPoint, ...]:
    """What other packages register. Looked up once: it means reading the metadata of every installed package."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def registry() -> dict[str, str]:
    """Name -> "module:Class" of every method that can be asked for, ours first, then those of other packages.

    Raises `ValueError` when two different classes are registered under one name.
    """
    found = BUILT_IN | _registered
    for point in plug_ins():
        taken = found.setdefault(point.name, point.value)
        if taken != point.value:
            raise ValueError(
                f"the method name {point.name!r} is registered twice, by {taken} and by {point.value}; "
                "uninstall one of the packages"
            )
    return found


def load(name: str) -> type[Method]:
    """The class registered under `name`.

    Raises `KeyError` when there is none, and `ValueError` when what is registered cannot be loaded or is no method.
    """
    value = registry()[name]
    module, _, attribute = value.partition(":")
    try:
        method = getattr(import_module(module), attribute)
    # The module may be another package's, which may fail in any way.
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the method {name} cannot be loaded from {value}: {problem}") from error
    return _checked(name, value, method)


def _checked(name: str, value: str, method: Any) -> type[Method]:
    from distilbench_methods.base import Method

    is_method = isinstance(method, type) and issubclass(method, Method) and is_dataclass(method)
    if not is_method:
        raise ValueError(f"the method {name} is registered as {value}, which is no dataclass made from Method")
    found: type[Method] = method
    return found
