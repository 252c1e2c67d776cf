"""The processes of a run: one, or several that `accelerate launch` started, each on a device of its own.

Notable choices:
- every process takes each step on data of its own and gradients are averaged: what a batch so many times as large gives
- only gradients are exchanged, not a wrapped model: what is trained here is small beside what is frozen, and a task may
  run its model as often as it likes in a step
- the first process alone measures, saves and talks
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

PATIENCE = timedelta(days=1)  # while the first process encodes or measures, the others wait


class Processes:
    """Those of this run. Make it before a model is loaded: it gives each process its own device.

    rank: the number of this one, the first is 0 · count: of all.
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state: Any = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
            self.rank, self.count = self._state.process_index, self._state.num_processes
            atexit.register(_part)

    @property
    def first(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            self._state.wait_for_everyone()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process runs the block before all others do: they find what it has written."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    @torch.no_grad()
    def alike(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the first one's values."""
        if self.count > 1:
            from accelerate.utils import broadcast

            for parameter in parameters:
                parameter.copy_(broadcast(parameter.detach().clone(), from_process=0))

    def agree(self, number: int) -> bool:
        """Whether every process has this number."""
        if self.count == 1:
            return True
        both = torch.tensor([number, number**2], dtype=torch.float64, device=self._state.device)
        mean, square = self.mean(both).tolist()
        return bool(mean**2 == square)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make each gradient the mean of all processes', where one that has none counts as zero; one that no process
        has stays none, as in a single process."""
        if self.count == 1 or not parameters:
            return
        there = self.mean(torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device))
        for parameter, some in zip(parameters, there.tolist(), strict=True):
            if some:
                parameter.grad = self.mean(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' tensors of one shape."""
        if self.count == 1:
            return value
        from accelerate.utils import reduce

        total: Tensor = reduce(value.detach().clone(), "mean")
        return total


def _part() -> None:
    """Leave the group while Python still runs: a process that ends in it may be aborted by the group's own threads."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
