"""Contrast stacked layers as the released code of CoDIR does: noise-contrastive estimation over two memory banks.

Source: the code released with Sun et al. 2020, arXiv:2009.14167, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from distilbench_methods.banks import NoiseContrast
from distilbench_methods.base import Signals
from distilbench_methods.codir import LayerContrast, LayerMap
from distilbench_methods.pooling import LayerPooling
from distilbench_methods.space import Space, Span, space


@dataclass(frozen=True, kw_only=True)
class CoDIRCode(LayerContrast, NoiseContrast):
    """Contrastive distillation on intermediate representations, the form of the released code."""

    name: ClassVar[str] = "codir-code"
    source: ClassVar[str] = (
        "The code released with Sun et al. 2020, arXiv:2009.14167: first-token states of all student layers and of "
        "every second teacher layer, both projections trained, a memory bank for each model with positives from the "
        "banks, the noise-contrastive loss of CRD halved, the normaliser of the first batch kept for good. Without "
        "class labels any other sentence may be a negative, and a cosine term to the teacher's final vector replaces "
        "task loss and logit distillation. The code's teacher keeps its dropout on, which is not taken over. Bank "
        "rows move by projections taken after the optimiser's step."
    )
    unverified: ClassVar[str] = (
        "The code's effective weight is its coefficient divided by the batch size, and that coefficient was swept; 1 "
        "is our choice, as is the weight of the final term."
    )
    search_space: ClassVar[Space] = space(
        contrastive_weight=Span(0.1, 10.0, log=True),
        num_negatives=Span(32, 512, log=True),
        temperature=Span(0.02, 0.5, log=True),
        bank_momentum=Span(0.0, 0.9),
    )

    contrastive_weight: float = 1.0
    """Weight of the contrastive term over the stacked layers, the mean of both directions."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's; 0 leaves the contrastive term alone."""
    num_negatives: int = 100
    """Bank rows drawn for each sentence and step."""
    temperature: float = 0.07
    """Divides the cosines of the contrastive term."""
    shared_width: int = 128
    """Width of the space in which the layers of both models are compared."""
    bank_momentum: float = 0.5
    """Share of a bank row that stays when its sentence is seen again; 0 replaces the row."""
    layer_map: LayerMap = "code"
    """Teacher layers that are stacked: `code`, every second from the first on; `last`; or `all`."""
    layer_pooling: LayerPooling = "cls"
    """How layers are pooled: the first token's state (`cls`), or the `mean` over tokens."""

    def contrast(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        return self.sides(signals, aux).mean()
