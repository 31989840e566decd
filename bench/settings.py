"""Where things lie on this machine, and what it is."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.errors import UserError

CACHE_VARIABLE = "DISTILBENCH_CACHE"
MIRROR_VARIABLE = "DISTILBENCH_MIRROR"
DEVICES = ("auto", "cpu", "cuda", "mps")
REPORTED_PACKAGES = ("distilbench", "torch", "transformers", "tokenizers", "mteb", "numpy", "scipy")


@dataclass(frozen=True)
class Settings:
    """Folders and device of one invocation."""

    out: Path
    cache: Path
    mirror: Path | None
    device: str


def settings(out: str, mirror: str | None, device: str) -> Settings:
    """Check folders and device. Raises `UserError` for a folder that cannot be written, or a device that is missing."""
    folder = mirror or os.environ.get(MIRROR_VARIABLE) or None
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"the mirror {folder} is not a folder; give --mirror DIR or unset {MIRROR_VARIABLE}")
    return Settings(
        out=writable(Path(out), "--out"),
        cache=writable(cache_folder(), CACHE_VARIABLE),
        mirror=Path(folder) if folder else None,
        device=choose_device(device),
    )


def cache_folder() -> Path:
    """Folder for weights, tokenised text, teacher signals and scores."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("distilbench"))


def writable(folder: Path, option: str) -> Path:
    """The folder, made if need be. Raises `UserError` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder with {option}") from None


def choose_device(wanted: str) -> str:
    """cuda, else mps, else cpu, unless told otherwise."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(wanted.split(":")[0], False):
        raise UserError(f"device {wanted} is not available here; use --device auto")
    return wanted


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, for the record."""
    import torch

    return {
        **{name: version(name) for name in REPORTED_PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
