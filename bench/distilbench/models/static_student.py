"""A static student: one vector per token, no transformer; the cheap reference that every distilled one has to beat.

As the package model2vec makes it (Tulkens and van Dongen 2024): each token that is kept passes the teacher once, the
vectors are reduced by PCA and weighted by how rare the token is. A sentence is the mean of its tokens without unknown
ones, brought to unit length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distilbench.models.encoder import Encoder, Normalize
from distilbench.models.parts.token_table import TokenTable
from distilbench.study.budget import Ledger, phase
from distilbench.study.sections.models import StaticSpec

TOKENS_AT_ONCE = 1024
UNUSED = re.compile(r"\[unused\d+\]")
"""Placeholders in BERT's vocabulary, which no text is cut into."""


def static_encoder(table_VS: Tensor, max_length: int) -> Encoder:
    """An encoder that takes the mean of token vectors, at unit length."""
    return Encoder(TokenTable(table_VS), pooling="mean", head=nn.Sequential(Normalize()), max_length=max_length)


def rarity(num_tokens: int, smoothing: float) -> Tensor:
    """a / (a + p_r) for the token of rank r, [V], p_r proportional to 1 / (r + 2): ids are in the order of ranks."""
    share_V = 1 / (torch.arange(num_tokens, dtype=torch.float64) + 2)
    return smoothing / (smoothing + share_V / share_V.sum())


def kept_tokens(tokenizer: Any, num_vectors: int) -> Tensor:
    """Ids of the tokens that get a vector and a rank, as model2vec chooses them, in rising order.

    Left out are placeholders, and what was added to the vocabulary but for the padding and the unknown token.
    """
    out = set(tokenizer.added_tokens_decoder) - {tokenizer.pad_token_id, tokenizer.unk_token_id}
    names = sorted((number, name) for name, number in tokenizer.get_vocab().items() if number < num_vectors)
    return torch.tensor([number for number, name in names if number not in out and not UNUSED.match(name)])


def reduce(vectors_VH: Tensor, width: int) -> Tensor:
    """Centred vectors on their `width` leading principal components, [V, width], each with a fixed sign."""
    centred_VH = vectors_VH.double() - vectors_VH.double().mean(0)
    _, directions = torch.linalg.eigh(centred_VH.T @ centred_VH)
    leading_HS = directions.flip(-1)[:, :width]
    largest = leading_HS.gather(0, leading_HS.abs().argmax(dim=0, keepdim=True))
    reduced_VS: Tensor = centred_VH @ (leading_HS * largest.sign())
    return reduced_VS


def distil_static(teacher: Encoder, tokenizer: Any, spec: StaticSpec, ledger: Ledger) -> Encoder:
    """The static student of a teacher; its tokens' passes are charged to the ledger."""
    table = teacher.backbone.get_input_embeddings()
    kept_K = kept_tokens(tokenizer, table.num_embeddings)
    with phase(ledger, "teacher"):
        vectors_KH = torch.cat(list(_token_vectors(teacher, tokenizer, kept_K.tolist())))
    vectors_KS = reduce(vectors_KH, min(spec.width, vectors_KH.shape[1]))
    vectors_KS *= rarity(len(kept_K), spec.smoothing)[:, None]
    table_VS = torch.zeros(table.num_embeddings, vectors_KS.shape[1])
    table_VS[kept_K] = vectors_KS.float()
    if tokenizer.unk_token_id is not None:
        table_VS[tokenizer.unk_token_id] = 0
    ledger.teacher_sentences_online += len(kept_K)
    ledger.teacher_flops_online += teacher.forward_flops(len(kept_K), len(_around(tokenizer, 0)))
    return static_encoder(table_VS, teacher.max_length)


def _token_vectors(teacher: Encoder, tokenizer: Any, tokens: list[int]) -> Iterator[Tensor]:
    with torch.inference_mode():
        for start in range(0, len(tokens), TOKENS_AT_ONCE):
            rows = [_around(tokenizer, token) for token in tokens[start : start + TOKENS_AT_ONCE]]
            ids_BT = torch.tensor(rows, device=teacher.device)
            out = teacher(ids_BT, torch.ones_like(ids_BT), layers=(teacher.dims.layers,))
            yield out.layers[:, 0].float().cpu()


def _around(tokenizer: Any, token: int) -> list[int]:
    """A token between the special ones that surround a text."""
    surrounding: list[int] = tokenizer("")["input_ids"]
    middle = len(surrounding) // 2
    return [*surrounding[:middle], token, *surrounding[middle:]]
