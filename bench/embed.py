"""Vectors of any texts: in length order, so that little is padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.encoder import Encoder
from bench.store import length_batches

TOKENS_PER_PASS = 2048
BATCH_RULE = f"distinct texts by length, at most {TOKENS_PER_PASS} padded tokens a batch"


@torch.inference_mode()
def embed(model: Encoder, tokenizer: Any, texts: list[str]) -> NDArray[np.float32]:
    """The vectors that ship, [texts, width], in the order of the texts."""
    rows = tokenizer(texts, truncation=True, max_length=model.max_length)["input_ids"]
    lengths = np.array([len(row) for row in rows])
    found = np.empty((len(texts), model.output_width()), dtype=np.float32)
    for part in length_batches(np.arange(len(texts)), lengths, TOKENS_PER_PASS):
        batch = tokenizer.pad({"input_ids": [rows[place] for place in part]}, return_tensors="pt").to(model.device)
        found[part] = model(batch["input_ids"], batch["attention_mask"]).final.float().cpu().numpy()
    return found
