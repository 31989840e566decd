"""Where things lie on this machine, and what it is."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distilbench.core.errors import UserError

CACHE_VARIABLE = "DISTILBENCH_CACHE"
MIRROR_VARIABLE = "DISTILBENCH_MIRROR"
REPORTED_PACKAGES = ("distilbench", "torch", "transformers", "tokenizers", "mteb", "numpy", "scipy")


@dataclass(frozen=True)
class Settings:
    """Folders and device of one invocation."""

    out: Path
    cache: Path
    mirror: Path | None
    device: str
    checkpoint_seconds: float = 15.0
    """Least time between checkpoints of a training; 0 makes one after every step."""
    trackers: tuple[str, ...] = ()
    """Where curves and ledgers are shown beside the records, such as tensorboard."""
    log_folder: Path = Path("logs")
    """Where trackers keep their files."""


def settings(
    *,
    out: str | Path = "results",
    mirror: str | Path | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 15.0,
    trackers: Sequence[str] = (),
    log_folder: str | Path = "logs",
    writing: bool = True,
) -> Settings:
    """Check folders and device, and make the device the current one. Folders to write to are made if `writing`.

    Raises `UserError` for a folder that cannot be written, or a device that is missing.
    """
    folder = mirror or os.environ.get(MIRROR_VARIABLE) or None
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"the mirror {folder} is not a folder; give --mirror DIR or unset {MIRROR_VARIABLE}")
    there = Path(folder) if folder else None
    chosen = Settings(
        out=Path(out),
        cache=cache_folder(),
        mirror=there,
        device=choose_device(device),
        checkpoint_seconds=checkpoint_seconds,
        trackers=tuple(trackers),
        log_folder=Path(log_folder),
    )
    if writing:
        writable(chosen.out, "--out")
        writable(chosen.cache, CACHE_VARIABLE)
    _make_current(chosen.device)
    return chosen


def cache_folder() -> Path:
    """Folder for weights, tokenised text, teacher signals and scores.

    Raises `UserError` where none is named and the user has no home for one, as in many containers.
    """
    import platformdirs

    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    try:
        folder = Path(platformdirs.user_cache_dir("distilbench"))
    except RuntimeError:
        folder = Path()
    # Older versions of platformdirs leave the sign for a home that they do not find.
    if not folder.is_absolute():
        raise UserError(f"there is no home folder to keep a cache in; set {CACHE_VARIABLE} to a folder")
    return folder


def writable(folder: Path, option: str) -> Path:
    """The folder, made if need be. Raises `UserError` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder with {option}") from None


def choose_device(wanted: str) -> str:
    """The name of a device: cuda, else mps, else cpu, unless told otherwise. The first of its kind has no number.

    Raises `UserError` for a device that is not there.
    """
    import torch

    there = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if wanted == "auto":
        return next(name for name, count in there.items() if count)
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"{wanted!r} is not a device; known: auto, cpu, cuda, cuda:1 and so on, mps") from None
    index = device.index or 0
    if index >= there.get(device.type, 0):
        raise UserError(f"device {wanted} is not available here; use --device auto")
    return f"{device.type}:{index}" if index else device.type


def _make_current(device: str) -> None:
    # Time, memory and random state are then those of this device wherever torch is asked for the current one.
    import torch

    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device).index or 0)


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, for the record."""
    import torch

    on_cuda = device.startswith("cuda")
    return {
        **{name: version(name) for name in REPORTED_PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_cuda else device,
        # Whether products in fp32 are of numbers with TF32's 10 digits of mantissa.
        **({"tf32": torch.backends.cuda.matmul.allow_tf32} if on_cuda else {}),
    }


def cpu_name() -> str:
    """The processor, as its maker calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
