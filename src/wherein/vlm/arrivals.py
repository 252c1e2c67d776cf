"""Which token of the language model shows which cell: number what leaves the connector, and look where it arrives.

Whatever a family does in between (unpad, add ends of rows, shuffle windows back), it does to the numbers as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein.vlm.replay import Reached
from wherein.vlm.seams import Seams, before

BASE = 64  # numbers in two digits of this base, which every dtype holds exactly


@torch.no_grad()
def arrivals(seams: Seams, entry: nn.Module, run: Callable[[], object]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(positions int64[M] in the sequence, rows int64[M] of the connector's output that arrive there) of one image.

    `entry` is the module that receives the sequence as `inputs_embeds`, `run` the model's forward pass on the image.
    """
    received: list[Tensor] = []

    def stop(embeds: Tensor) -> None:
        """Keep the three numbered channels; nothing behind them is needed."""
        received.append(embeds[0, :, :3].float().cpu())
        raise Reached

    hook = entry.register_forward_pre_hook(before(stop, "inputs_embeds"), with_kwargs=True)
    try:
        for scale in (0.0, 1.0):
            with seams.open("connector_tokens", partial(_numbered, scale)), suppress(Reached):
                run()
    finally:
        hook.remove()
    high, low, one = (received[1] - received[0]).unbind(-1)  # what the family adds by itself is in both
    positions = (one != 0).nonzero().flatten()
    rows = (high / one).round() * BASE + (low / one).round()  # it may scale its tokens: the third channel says how
    return positions.numpy(), rows[positions].long().numpy()


def _numbered(scale: float, x: Tensor) -> Tensor:
    """Row i of float[*, D_t] becomes (i // BASE, i % BASE, 1, 0 ...) * scale."""
    index = torch.arange(x[..., 0].numel(), device=x.device).reshape(x.shape[:-1])
    coded = torch.zeros_like(x)
    for channel, value in enumerate((index // BASE, index % BASE, torch.ones_like(index))):
        coded[..., channel] = value.to(x.dtype) * scale
    return coded
