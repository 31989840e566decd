"""Learn without a teacher: two dropout views of a sentence must find each other among those of the batch.

Source: Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 4 (unsupervised).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from methods.base import Dims, Method, Needs, Signals, check_positive, matmul_flops
from methods.functional import info_nce


@dataclass(frozen=True, kw_only=True)
class SimCSE(Method):
    """Unsupervised contrastive learning, the control that shows what a teacher adds."""

    name: ClassVar[str] = "simcse"
    source: ClassVar[str] = (
        "Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 4: InfoNCE between two dropout views, the first one the anchor. "
        "The head (dense and tanh) is used in training only. The authors put it on the first token's vector, which "
        "they also ship; here it stands on the bench's shipped pooling, mean pooling by default."
    )

    temperature: float = 0.05
    """Divides the cosines: smaller values stress the hardest negatives."""

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def needs(self, dims: Dims) -> Needs:
        return Needs(student_views=2)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        width = dims.student.width
        return nn.ModuleDict({"head": nn.Sequential(nn.Linear(width, width), nn.Tanh())})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        anchor_BS, candidate_BS = aux["head"](signals.student_BS), aux["head"](signals.second_view_BS)
        return {"contrastive": info_nce(anchor_BS, candidate_BS, self.temperature)}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width = dims.student.width
        return 2 * matmul_flops(batch_size, width, width) + matmul_flops(batch_size, width, batch_size)
