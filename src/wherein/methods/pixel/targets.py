"""Which tokens have a place to be learnt, and where that is: traces word by word, phrases at their last word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wherein.errors import InputError
from wherein.methods.pixel import losses
from wherein.methods.pixel.points import corners_of


@dataclass(frozen=True, eq=False)
class Targets:
    """points float[R, T, P, 2], model pixels, of the tokens `placed` bool[R, T] · last bool[R, T]: the last words of
    phrases · skipped: how many phrases have none, since they were cut off.
    """

    points: Tensor
    placed: Tensor
    last: Tensor
    skipped: int

    @classmethod
    def of(
        cls,
        labels: Tensor,
        tasks: str | Sequence[str],
        points: Tensor | None,
        boxes: Tensor | None,
        count: int,
        end: int,
    ) -> Targets:
        """For labels int64[R, T]; arguments as of `PixelLM.forward`, `count` points a token.

        Raises InputError for a task without what it teaches.
        """
        traced, boxed = (losses.switched(tasks, len(labels), loss, labels.device)[:, None] for loss in ("point", "box"))
        true = torch.zeros(*labels.shape, count, 2, device=labels.device)
        placed = torch.zeros_like(labels, dtype=torch.bool)
        last = losses.last_words(labels, end) & boxed
        if traced.any():
            if points is None:
                raise InputError("The task trace teaches points: give them, or choose the task caption.")
            if points.shape != true.shape:
                raise InputError(f"Points have shape {list(true.shape)} here, not {list(points.shape)}.")
            true = points.to(true)
            placed = losses.places(labels, true, end) & traced
        if boxed.any():
            if boxes is None or count != 2:
                raise InputError("The tasks refer and segment teach boxes: give them, to a model of 2 points a token.")
            true = torch.where(last[..., None, None], corners_of(boxes.to(true))[:, None], true)
        return cls(true, placed | last, last, int((boxed[:, 0] & ~last.any(1)).sum()))
