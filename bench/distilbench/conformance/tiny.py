"""A real student of a few hundred numbers, so that the export can be tried on any method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizerFast

from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench_methods.base import Dims

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class TinyStudent:
    """A random BERT of the shape that `Dims` says, and three sentences."""

    def __init__(self, dims: Dims) -> None:
        config = BertConfig(
            vocab_size=dims.vocabulary,
            hidden_size=dims.student.width,
            num_hidden_layers=dims.student.layers,
            num_attention_heads=dims.student.heads,
            intermediate_size=2 * dims.student.width,
            max_position_embeddings=16,
            initializer_range=0.3,
        )
        with torch.random.fork_rng():
            torch.manual_seed(4)
            backbone = BertModel(config, add_pooling_layer=False)
            self.ids_BT = torch.randint(len(SPECIAL), dims.vocabulary, (3, 5))
            # An earlier stage may have given the student a head.
            earlier = nn.Linear(dims.student.width, dims.student_final)
        head = earlier if dims.student_final != dims.student.width else None
        self.encoder = Encoder(backbone, pooling="mean", head=head, max_length=16).eval()

    def vectors(self, encoder: Encoder | None = None) -> Tensor:
        """What ships, [3, S]."""
        with torch.no_grad():
            final: Tensor = (encoder or self.encoder)(self.ids_BT, torch.ones_like(self.ids_BT)).final
        return final

    def put_behind(self, head: nn.Module) -> None:
        """Ship a head behind what ships so far, as the end of a training does."""
        own = [] if isinstance(self.encoder.head, nn.Identity) else [self.encoder.head]
        self.encoder.head = nn.Sequential(*own, *(head if isinstance(head, nn.Sequential) else [head]))


@contextmanager
def tiny_student(dims: Dims) -> Iterator[tuple[TinyStudent, Any, Path]]:
    """A student, its tokenizer, and a folder to export it to that does not exist yet."""
    with TemporaryDirectory() as place:
        vocabulary = Path(place) / "vocab.txt"
        vocabulary.write_text("\n".join((*SPECIAL, *LETTERS)[: dims.vocabulary]), encoding="utf-8")
        yield TinyStudent(dims), BertTokenizerFast(vocab=str(vocabulary)), Path(place) / "model"


def reloaded(folder: Path, student: TinyStudent) -> tuple[Tensor, int]:
    """The vectors of the exported student, and how many numbers its folder holds."""
    stored = sum(tensor.numel() for file in folder.rglob("*.safetensors") for tensor in load_file(file).values())
    return student.vectors(load_encoder(folder)), stored
