"""Which token of the language model shows what: write it on what leaves the connector, and read it where it arrives.

Whatever a family does in between (unpad, add ends of rows, shuffle windows back, resample a grid of tiles), it does to
what is written as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein.vlm.replay import Reached
from wherein.vlm.seams import Seams, before

STEPS = 64  # channels of a number, at most; bfloat16 rounds it to a 500th of a step


@torch.no_grad()
def arrivals(
    seams: Seams, entry: nn.Module, run: Callable[[], object], told: Callable[[int], NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(positions int64[M] in the sequence, what arrives there float64[M, K]) of one image.

    `entry` is the module that receives the sequence as `inputs_embeds`, `run` the model's forward pass on the image,
    `told(N)` what each of the N rows of the connector's output says: float64[N, K], from 0 to 1. A token that the
    family mixes of several rows says their mean.
    """
    received: list[Tensor] = []
    numbers: list[Tensor] = []

    def stop(embeds: Tensor) -> None:
        """Keep what is written; nothing behind it is needed."""
        received.append(embeds[0].cpu().double())
        raise Reached

    def write(x: Tensor) -> Tensor:
        """The connector's output float[*, D_t] with the numbers in place of what it is."""
        numbers.append(torch.from_numpy(told(x[..., 0].numel())))
        return _written(numbers[0], x.shape[-1]).to(x).reshape(x.shape)

    hook = entry.register_forward_pre_hook(before(stop, "inputs_embeds"), with_kwargs=True)
    try:
        for insert in (torch.zeros_like, write):
            with seams.open("connector_tokens", insert), suppress(Reached):
                run()
    finally:
        hook.remove()
    came = received[1] - received[0]  # what the family adds by itself is in both
    positions = came[:, 0].nonzero().flatten()
    return positions.numpy(), _read(came[positions], numbers[0].shape[1]).numpy()


def _written(numbers: Tensor, width: int) -> Tensor:
    """Numbers float64[N, K] -> float64[N, D_t]: 1, then the steps of each number, then 0.

    Of a number that fills 2.3 of its steps they are 1, 1, 0.3, 0, ...: their mean is the number, also in a mixture of
    rows, and all but one or two of them are exact in any dtype.
    """
    steps = _steps(width, numbers.shape[1])
    filled = (numbers[..., None] * steps - torch.arange(steps)).clamp(0, 1).flatten(1)
    coded = torch.cat([torch.ones(len(numbers), 1), filled], 1)
    return nn.functional.pad(coded, (0, width - coded.shape[1]))


def _read(coded: Tensor, count: int) -> Tensor:
    """float64[M, D_t] -> float64[M, K]. A family may scale its tokens: the first channel says how."""
    steps = _steps(coded.shape[1], count)
    filled = coded[:, 1 : 1 + count * steps] / coded[:, :1]
    return filled.reshape(len(coded), count, steps).mean(-1)


def _steps(width: int, count: int) -> int:
    """How many channels each of `count` numbers has in a token of this width."""
    return min(STEPS, (width - 1) // count)
