"""What one call costs: wall-clock time, and of a GPU its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Cost(NamedTuple):
    """seconds, a GPU's work included · mib: a GPU's memory held at most, what was held before the call among it."""

    seconds: float
    mib: float


def cost(work: Callable[[], object], device: str) -> Cost:
    """Of one call on "cpu", where `mib` is 0, or on "cuda"."""
    if not device.startswith("cuda"):
        began = time.perf_counter()
        work()
        return Cost(time.perf_counter() - began, 0.0)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return Cost(time.perf_counter() - began, torch.cuda.max_memory_allocated(device) / 2**20)
