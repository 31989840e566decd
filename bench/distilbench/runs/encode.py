"""A model's vectors of a text as a folder, which can teach in the model's place: what `distilbench encode` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distilbench.core.errors import UserError, one_of
from distilbench.core.machine import Settings
from distilbench.core.sealed import write_folder_atomically
from distilbench.data.sentences import chunks, distinct
from distilbench.data.text import read_sentences
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.embed import embed
from distilbench.models.finding import find_model
from distilbench.records.record import dump_json
from distilbench.study.sections.texts import TextSpec
from distilbench.study.sections.training import Precision

VECTORS_FILE, ABOUT_FILE = "vectors.parquet", "about.json"
AT_ONCE = 4096


@dataclass(frozen=True)
class EncodedText:
    """What was written."""

    texts: int
    width: int


def encode_text(
    model: str,
    text: TextSpec,
    out: Path,
    settings: Settings,
    *,
    prompt: str | None = None,
    dtype: Precision = "fp32",
) -> EncodedText:
    """Write a model's vectors of the distinct sentences of a text, some of which are in memory at a time.

    With `text.side`, the folder says which side they are on, and the model's prompt of that name stands before each,
    unless `prompt` is given. Raises `UserError` for models and texts that are not there, for prompts that the model has
    not, and where `out` is taken.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is taken; choose another folder")
    stored = replace(find_model(model, settings.mirror, "--model"), dtype=dtype)
    encoder, tokenizer = stored.load().to(settings.device), load_tokenizer(stored.folder)
    if prompt is None:
        if text.side is not None and text.side not in encoder.prompts:
            raise UserError(f"--side: {one_of('prompt', text.side, encoder.prompts)}; or give one with --prompt")
        prompt = encoder.default_prompt if text.side is None else encoder.prompts[text.side]
    width, count = encoder.output_width(), 0
    sides = {} if text.side is None else {"side": pa.string()}
    schema = pa.schema({"text": pa.string(), **sides, "vector": pa.list_(pa.float32(), width)})

    def tables() -> Iterator[pa.Table]:
        nonlocal count
        for some in chunks(distinct(read_sentences(text, settings.mirror)), AT_ONCE):
            vectors = pa.FixedSizeListArray.from_arrays(embed(encoder, tokenizer, some, prompt).ravel(), width)
            said = {} if text.side is None else {"side": [text.side] * len(some)}
            count += len(some)
            yield pa.table({"text": some, **said, "vector": vectors}, schema=schema)

    def write(folder: Path) -> None:
        with pq.ParquetWriter(folder / VECTORS_FILE, schema) as writer:
            for table in tables():
                writer.write_table(table)
        about = {"model": stored.name, **stored.hashes(), "prompt": prompt, "max_length": encoder.max_length}
        dump_json(about, folder / ABOUT_FILE)

    write_folder_atomically(out, write)
    return EncodedText(count, width)
