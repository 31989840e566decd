"""`torch.compile` for the student that is trained, block by block.

Blocks are alike, so one compilation serves them all, and whatever reads hidden states between them stays outside of
what is compiled. Weights, names and exports are those of the plain student.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from distilbench.core.errors import UserError
from distilbench.models.encoder import Encoder, layer_stack
from distilbench.study.sections.training import Compile


@contextmanager
def compiled(encoder: Encoder, how: Compile | None) -> Iterator[None]:
    """Have the encoder's blocks compiled as long as this lasts, for batches of any shape; nothing for None.

    Raises `UserError` where torch cannot compile here, as without a C++ compiler, or Triton on a GPU.
    """
    if how is None:
        yield
        return
    _, blocks = layer_stack(encoder.backbone)
    for block in blocks:
        # The instance's attribute, not the module's call: hooks on the block stay as they are.
        block.forward = torch.compile(block.forward, mode=how, dynamic=True)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        why = " ".join(str(error).split("\n")[:2])
        raise UserError(f"train.compile {how}: torch cannot compile here ({why}); leave train.compile out") from None
    finally:
        for block in blocks:
            del block.forward


def begin_step(how: Compile | None) -> None:
    """What a recorded graph gave in the step before may be overwritten from here on."""
    if how is not None:
        torch.compiler.cudagraph_mark_step_begin()


def plain(how: Compile | None) -> AbstractContextManager[None]:
    """Nothing that is compiled runs within: passes that are made twice must draw the same dropout."""
    return nullcontext() if how is None else torch.compiler.set_stance("force_eager")
