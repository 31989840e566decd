"""How hidden states become one vector per sentence. Imports nothing, so that a study can name it without torch."""

from typing import Literal

LayerPooling = Literal["mean", "cls"]
"""The mean over real tokens, special ones included, or the first token."""
