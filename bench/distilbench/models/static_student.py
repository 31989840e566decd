"""A static student: one vector per token, no transformer; the cheap reference that every distilled one has to beat.

After model2vec (Tulkens and van Dongen 2024): each token of the vocabulary passes the teacher once, the vectors are
reduced by PCA and weighted by how rare the token is. A sentence is the mean of its tokens, brought to unit length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distilbench.models.encoder import Encoder, Normalize
from distilbench.models.parts.token_table import TokenTable
from distilbench.study.budget import Ledger, phase
from distilbench.study.sections.models import StaticSpec

TOKENS_AT_ONCE = 1024


def static_encoder(table_VS: Tensor, max_length: int) -> Encoder:
    """An encoder that takes the mean of token vectors, at unit length."""
    return Encoder(TokenTable(table_VS), pooling="mean", head=nn.Sequential(Normalize()), max_length=max_length)


def rarity(num_tokens: int, smoothing: float) -> Tensor:
    """a / (a + p_r) for the token of rank r, [V], p_r proportional to 1 / (r + 2): token ids stand in for ranks."""
    share_V = 1 / (torch.arange(num_tokens, dtype=torch.float64) + 2)
    return smoothing / (smoothing + share_V / share_V.sum())


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
    with phase(ledger, "teacher"):
        vectors_VH = torch.cat(list(_token_vectors(teacher, tokenizer)))
    table_VS = reduce(vectors_VH, min(spec.width, vectors_VH.shape[1]))
    table_VS *= rarity(len(table_VS), spec.smoothing)[:, None]
    # Tokens that stand in every sentence would only shift its mean.
    table_VS[torch.tensor(tokenizer.all_special_ids)] = 0
    ledger.teacher_sentences_online += len(vectors_VH)
    ledger.teacher_flops_online += teacher.forward_flops(len(vectors_VH), len(_around(tokenizer, 0)))
    return static_encoder(table_VS.float(), teacher.max_length)


def _token_vectors(teacher: Encoder, tokenizer: Any) -> Iterator[Tensor]:
    count = teacher.backbone.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        for start in range(0, count, TOKENS_AT_ONCE):
            rows = [_around(tokenizer, token) for token in range(start, min(start + TOKENS_AT_ONCE, count))]
            ids_BT = torch.tensor(rows, device=teacher.device)
            out = teacher(ids_BT, torch.ones_like(ids_BT), layers=(teacher.dims.layers,))
            yield out.layers[:, 0].float().cpu()


def _around(tokenizer: Any, token: int) -> list[int]:
    """A token between the special ones that surround a text."""
    surrounding: list[int] = tokenizer("")["input_ids"]
    middle = len(surrounding) // 2
    return [*surrounding[:middle], token, *surrounding[middle:]]
