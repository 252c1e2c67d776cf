"""Features caught on their way into a connector, and given back there: no image is encoded twice.

Where features are given, the encoder's blocks let their input through and the connector receives the features instead
of what comes out of them. All that lies between and behind stays the model's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wherein.vlm.seams import before, replaced, uncompiled


class Reached(Exception):
    """A forward pass came where it was to end."""


class Replay:
    """The encoder's `blocks`, and the modules that receive features, in the order in which a forward pass meets them.

    A receiver is (module, the name of the argument; None: the first). More than one receive features of other depths.
    """

    def __init__(self, blocks: Sequence[nn.Module], receivers: Sequence[tuple[nn.Module, str | None]]) -> None:
        self.blocks, self.receivers = blocks, receivers

    def catch(self, run: Callable[[], object]) -> Tensor:
        """Run the model up to its last receiver: what each of them receives, float[*, D], side by side."""
        caught: list[Tensor] = []

        def stop(x: Tensor) -> None:
            """Keep what is received, and go no further than needed."""
            caught.append(x)
            if len(caught) == len(self.receivers):
                raise Reached

        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            for module, argument in self.receivers:
                stack.callback(_first(module, before(stop, argument)))
            with suppress(Reached):
                run()
        return torch.cat(caught, dim=-1)

    @contextmanager
    def give(self, x_v: Tensor) -> Iterator[None]:
        """Inside the block the receivers get x_v float[B, N, D], and the blocks do nothing."""
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            for block in self.blocks:
                stack.enter_context(replaced(block, _pass))
            for (module, argument), part in zip(self.receivers, x_v.chunk(len(self.receivers), -1), strict=True):
                stack.callback(_first(module, before(partial(_instead, part), argument)))
            yield


def _first(module: nn.Module, hook: Callable[..., Any]) -> Callable[[], None]:
    """Hang a pre-hook before those of inserts; what is returned takes it down."""
    return module.register_forward_pre_hook(hook, with_kwargs=True, prepend=True).remove


def _pass(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _instead(features: Tensor, x: Tensor) -> Tensor:
    """`features` in the layout, dtype and place of x."""
    return features.to(x).reshape(x.shape).contiguous()
