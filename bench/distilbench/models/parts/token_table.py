"""The encoder body of a static student: a table of token vectors in the place of a transformer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn


class TokenTable(nn.Module):
    """What takes the transformer's place: token vectors looked up, and nothing done to them."""

    def __init__(self, table_VS: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table_VS, freeze=False)
        self.config = SimpleNamespace(
            hidden_size=table_VS.shape[1],
            num_hidden_layers=0,
            num_attention_heads=1,
            intermediate_size=0,
            _attn_implementation="none",
        )

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def set_attn_implementation(self, _: str) -> None:
        """There is no attention to choose."""

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        hidden_BTS = self.embedding(input_ids)
        return SimpleNamespace(last_hidden_state=hidden_BTS, hidden_states=(hidden_BTS,), attentions=())
