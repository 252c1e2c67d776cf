"""Method: one way to unlock localisation in a frozen VLM, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wherein.grounding import Grounding
from wherein.vlm.base import FrozenVLM

REGISTRY: dict[str, type[Method]] = {}


class Method(ABC):
    """A method bound to one VLM. It returns one box a phrase unless its docstring says otherwise.

    A subclass is made from (vlm), or from (vlm, adapter) if it `takes_adapter`: a folder, None for the built-in one.
    """

    name: ClassVar[str]
    score_kind: ClassVar[str]
    takes_adapter: ClassVar[bool] = False
    built_in_only: ClassVar[bool] = False  # it reads a part that only the default model has
    baseline: ClassVar[bool] = False  # only of PIN's table: there to be compared with
    finds_every: ClassVar[bool] = False  # it can tell several instances apart
    gives: ClassVar[frozenset[str]] = frozenset()  # of "heatmap" and "mask", what its groundings have

    def __init__(self, vlm: FrozenVLM) -> None:
        self.vlm = vlm

    @abstractmethod
    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """Where each phrase is on image uint8[H, W, 3], one Grounding a phrase, boxes in pixels of that image.

        With `absent=False` a phrase is never answered absent: the best box is given (what PIN's protocol needs).
        `every`: a box for each instance, from a method that `finds_every`; all others give the one they find.
        """


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: make a method known by its name."""
    REGISTRY[cls.name] = cls
    return cls
